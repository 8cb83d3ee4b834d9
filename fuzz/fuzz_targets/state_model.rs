#![no_main]

use switchboard_fuzz::state_model;

libfuzzer_sys::fuzz_target!(
    init: switchboard_fuzz::write_seeds_if_asked(state_model::seeds),
    |data: &[u8]| state_model::run(data)
);
