#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| firebuild_fuzz_targets::control(bytes));
