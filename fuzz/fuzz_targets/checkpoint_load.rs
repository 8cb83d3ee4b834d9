#![no_main]

use switchboard_fuzz::checkpoint_load;

libfuzzer_sys::fuzz_target!(
    init: switchboard_fuzz::write_seeds_if_asked(checkpoint_load::seeds),
    |data: &[u8]| checkpoint_load::run(data)
);
