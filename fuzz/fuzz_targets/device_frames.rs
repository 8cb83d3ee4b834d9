#![no_main]

use switchboard_fuzz::device_frames;

libfuzzer_sys::fuzz_target!(
    init: switchboard_fuzz::write_seeds_if_asked(device_frames::seeds),
    |data: &[u8]| device_frames::run(data)
);
