#![no_main]

use switchboard_fuzz::log_recovery;

libfuzzer_sys::fuzz_target!(
    init: switchboard_fuzz::write_seeds_if_asked(log_recovery::seeds),
    |data: &[u8]| log_recovery::run(data)
);
