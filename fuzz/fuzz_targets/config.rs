//! Any text as a config: it is refused, or what is given back means the same.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(parsed) = mobula_schema::parse(text) {
        let again = mobula_schema::parse(&parsed.document.to_string()).expect("what was accepted is accepted again");
        assert_eq!(again.config, parsed.config);
    }
});
