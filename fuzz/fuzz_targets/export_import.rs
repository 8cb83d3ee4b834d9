#![no_main]

use switchboard_fuzz::export_import;

libfuzzer_sys::fuzz_target!(
    init: switchboard_fuzz::write_seeds_if_asked(export_import::seeds),
    |data: &[u8]| export_import::run(data)
);
