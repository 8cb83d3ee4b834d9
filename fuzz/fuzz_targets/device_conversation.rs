#![no_main]

use switchboard_fuzz::device_conversation;

libfuzzer_sys::fuzz_target!(
    init: switchboard_fuzz::write_seeds_if_asked(device_conversation::seeds),
    |data: &[u8]| device_conversation::run(data)
);
