#![no_main]

use switchboard_fuzz::command_codec;

libfuzzer_sys::fuzz_target!(
    init: switchboard_fuzz::write_seeds_if_asked(command_codec::seeds),
    |data: &[u8]| command_codec::run(data)
);
