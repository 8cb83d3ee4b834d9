#![no_main]

use switchboard_fuzz::peer_codec;

libfuzzer_sys::fuzz_target!(
    init: switchboard_fuzz::write_seeds_if_asked(peer_codec::seeds),
    |data: &[u8]| peer_codec::run(data)
);
