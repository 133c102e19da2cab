//! UTF-8, a character at a time. The language's own check is fast on long text, but takes three times the code.

/// The character that begins at this byte.
#[inline(never)]
pub(crate) fn character(first: u8, rest: &mut &[u8]) -> Option<char> {
    let ones = first.leading_ones();
    let mut code = u32::from(first) & 0x7F >> ones;
    for _ in 1..ones {
        let byte = u32::from(*rest.split_off_first()?) ^ 0x80;
        code = if byte < 0x40 { code << 6 | byte } else { return None };
    }
    let length = if ones == 0 { 1 } else { ones as usize };
    char::from_u32(code).filter(|c| ones != 1 && c.len_utf8() == length)
}

/// Whether this is UTF-8, with the same result as [`core::str::from_utf8`].
pub fn is_valid(mut text: &[u8]) -> bool {
    while let Some(first) = text.split_off_first() {
        if character(*first, &mut text).is_none() {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::{character, is_valid};

    #[test]
    fn it_is_what_the_language_takes_for_it() {
        const BYTES: [u8; 18] = [
            0x20, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xE0, 0xED, 0xEF, 0xF0, 0xF4,
            0xF5, 0xFF,
        ];
        for number in 0..BYTES.len().pow(4) {
            let bytes = [0, 1, 2, 3].map(|place| BYTES[number / BYTES.len().pow(place) % BYTES.len()]);
            let valid = match std::str::from_utf8(&bytes) {
                Ok(text) => text,
                Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap(),
            };
            let (wanted, mut rest) = (valid.chars().next(), &bytes[1..]);
            assert_eq!(character(bytes[0], &mut rest), wanted, "{bytes:x?}");
            assert_eq!(is_valid(&bytes), valid.len() == 4, "{bytes:x?}");
            assert!(wanted.is_none_or(|c| rest.len() + c.len_utf8() == 4), "{bytes:x?}");
        }
    }
}
