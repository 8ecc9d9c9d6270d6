//! Channel names from a user who types anything.

#![no_main]

use bus_core::ChannelName;
use bus_core::limits::CHANNEL_NAME_MAX_BYTES;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|name: &str| match ChannelName::new(name) {
    Ok(checked) => {
        assert_eq!(checked.as_str(), name);
        assert!((1..=CHANNEL_NAME_MAX_BYTES).contains(&name.len()));
        for token in name.split('.') {
            assert!(!token.is_empty());
            assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)));
        }
    }
    // The words for the user quote the name, whatever it is.
    Err(error) => assert!(!error.to_string().is_empty()),
});
