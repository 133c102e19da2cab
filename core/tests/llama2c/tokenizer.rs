//! The tokenizers: a small one made here, and `tok512.bin` of the TinyStories models.

use jostle::llama2c::{BOS, EOS, Piece, Tokenizer};
use jostle::{Error, Llama2cError};

use crate::shared;

/// A tokenizer file, with the index for it.
struct Read {
    file: Vec<u8>,
    index: Vec<u32>,
}

impl Read {
    fn new(file: Vec<u8>) -> Read {
        let mut index = vec![u32::MAX; Tokenizer::index_len(&file).unwrap()];
        Tokenizer::new(&file, &mut index).unwrap();
        Read { file, index }
    }

    fn tokenizer(&self) -> Tokenizer<'_> {
        Tokenizer::with_index(&self.file, &self.index)
    }

    fn encode(&self, text: &[u8], bos: bool, eos: bool) -> Vec<i32> {
        let mut tokens = vec![-7; Tokenizer::room(text.len())];
        let count = self.tokenizer().encode(text, bos, eos, &mut tokens).unwrap();
        tokens.truncate(count);
        tokens
    }

    fn decode(&self, previous: Option<i32>, tokens: &[i32]) -> Vec<u8> {
        let tokenizer = self.tokenizer();
        let mut bytes = vec![0; tokenizer.decoded_len(previous, tokens).unwrap()];
        assert_eq!(tokenizer.decode(previous, tokens, &mut bytes), Ok(bytes.len()));
        bytes
    }
}

/// The control tokens, the bytes, and these pieces of text.
fn pieces(more: &[(&str, f32)]) -> Vec<(Vec<u8>, f32)> {
    let text = |text: &str| text.as_bytes().to_vec();
    let mut pieces: Vec<_> =
        ["<unk>", "\n<s>\n", "\n</s>\n"].iter().map(|control| (text(control), 0.0)).collect();
    pieces.extend((0..256).map(|byte| (text(&format!("<0x{byte:02X}>")), 0.0)));
    pieces.extend(more.iter().map(|(piece, score)| (text(piece), *score)));
    pieces
}

fn written(pieces: &[(Vec<u8>, f32)]) -> Result<Vec<u8>, Error> {
    let pieces = pieces.iter().map(|(text, score)| Piece { text, score: *score });
    let mut file = vec![7; Tokenizer::file_len(pieces.clone())?];
    assert_eq!(Tokenizer::write(pieces, &mut file), Ok(file.len()));
    Ok(file)
}

const SMALL: [(&str, f32); 12] = [
    (" ", -9.0),
    ("a", -9.0),
    ("b", -9.0),
    ("é", -9.0),
    ("ab", -1.0),
    ("ba", -1.0),
    ("aba", -3.0),
    (" a", -2.0),
    ("  ", -1e9),
    ("bb", f32::NAN),
    ("aé", -2e10),
    ("éa", -2.0),
];

fn small() -> Read {
    Read::new(written(&pieces(&SMALL)).unwrap())
}

/// Karpathy's tokenizer of 512 tokens.
fn tok512() -> Option<Read> {
    shared("tok512.bin").map(Read::new)
}

/// Tokens by their order in [`SMALL`].
fn token(text: &str) -> i32 {
    259 + SMALL.iter().position(|piece| piece.0 == text).unwrap() as i32
}

/// As llama2.c encodes: each round looks at every pair.
fn encode_slowly(pieces: &[(Vec<u8>, f32)], text: &[u8]) -> Vec<i32> {
    let find =
        |text: &[u8]| pieces.iter().skip(259).position(|piece| piece.0 == text).map(|n| n as i32 + 259);
    let mut tokens = Vec::new();
    let mut rest = text;
    if !text.is_empty() {
        tokens.push(find(b" ").unwrap());
    }
    while !rest.is_empty() {
        let inside = rest[1..].iter().take(3).take_while(|byte| **byte & 0xC0 == 0x80).count();
        let (character, after) = rest.split_at(1 + inside);
        match find(character) {
            Some(token) => tokens.push(token),
            None => tokens.extend(character.iter().map(|byte| i32::from(*byte) + 3)),
        }
        rest = after;
    }
    loop {
        let mut best = (-1e10, None);
        for (i, pair) in tokens.windows(2).enumerate() {
            let text = pair.iter().flat_map(|token| pieces[*token as usize].0.clone()).collect::<Vec<_>>();
            if let Some(token) = find(&text)
                && pieces[token as usize].1 > best.0
            {
                best = (pieces[token as usize].1, Some((i, token)));
            }
        }
        let (_, Some((i, token))) = best else { return tokens };
        tokens[i] = token;
        tokens.remove(i + 1);
    }
}

fn all_pieces(read: &Read) -> Vec<(Vec<u8>, f32)> {
    let tokenizer = read.tokenizer();
    let piece = |token| tokenizer.piece(token).unwrap();
    (0..tokenizer.vocab() as i32).map(|token| (piece(token).text.to_vec(), piece(token).score)).collect()
}

/// Texts of the given characters, and of wild bytes.
fn texts(characters: &[&str]) -> Vec<Vec<u8>> {
    let mut state = 7_u32;
    let mut next = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    (0..300)
        .map(|i| {
            let length = next(40);
            (0..length)
                .flat_map(|_| match i % 3 {
                    0 => vec![next(256) as u8],
                    _ => characters[next(characters.len())].as_bytes().to_vec(),
                })
                .collect()
        })
        .collect()
}

#[test]
fn pairs_merge_by_score_and_then_from_the_left() {
    let read = small();
    let of = |text: &str| read.encode(text.as_bytes(), false, false);
    assert_eq!(of("ab"), [token(" "), token("ab")]);
    // "ab" and "ba" have the same score; then "ab" + "a" merges.
    assert_eq!(of("aba"), [token(" "), token("aba")]);
    assert_eq!(of("bab"), [token(" "), token("ba"), token("b")]);
    // The space in front merges as well.
    assert_eq!(of("aa"), [token(" a"), token("a")]);
    // A score that is NaN or too low never merges.
    assert_eq!(of("bb"), [token(" "), token("b"), token("b")]);
    assert_eq!(of("baé"), [token(" "), token("ba"), token("é")]);
    assert_eq!(of(" b"), [token("  "), token("b")]);
}

#[test]
fn bytes_stand_for_what_has_no_token() {
    let read = small();
    assert_eq!(read.encode("xé".as_bytes(), true, true), [BOS, token(" "), 3 + 0x78, token("é"), EOS]);
    assert_eq!(read.encode(&[0xC3, b'a', 0], false, false), [token(" "), 3 + 0xC3, token("a"), 3]);
    // Bytes do not merge, whatever their names are.
    let read = Read::new(written(&pieces(&[("a", 0.0), ("a<0x78>", 0.0)])).unwrap());
    assert_eq!(read.encode(b"ax", false, false)[1..], [259, 3 + 0x78]);
    // Without a token for the space, it is a byte.
    let read = Read::new(written(&pieces(&[("a", 0.0)])).unwrap());
    assert_eq!(read.encode(b"a", true, false), [BOS, 3 + 0x20, 259]);
    assert_eq!(read.decode(None, &[BOS, 3 + 0x20, 259]), b"a");
}

#[test]
fn an_empty_text_gets_no_space() {
    assert_eq!(small().encode(b"", false, false), []);
    assert_eq!(small().encode(b"", true, true), [BOS, EOS]);
}

#[test]
fn decoding_removes_the_space_after_bos_alone() {
    let read = small();
    assert_eq!(read.decode(None, &[BOS, token(" a"), token(" a"), EOS]), b"a a");
    assert_eq!(read.decode(None, &[token(" a")]), b" a");
    assert_eq!(read.decode(Some(BOS), &[token(" a"), token("b")]), b"ab");
    assert_eq!(read.decode(Some(EOS), &[token(" a"), 0]), b" a<unk>");
}

#[test]
fn tokens_are_those_of_the_slow_algorithm_and_texts_come_back() {
    let reads = [
        Some((small(), ["a", "b", "é", " ", "x"].as_slice())),
        tok512().map(|read| {
            (read, ["Once", " upon", "a", "t", "he", " ", "é", "\n", "🦀", "ing", "…", "<0x41>"].as_slice())
        }),
    ];
    for (read, characters) in reads.into_iter().flatten() {
        let pieces = all_pieces(&read);
        for text in texts(characters) {
            let tokens = read.encode(&text, true, false);
            assert_eq!(tokens[1..], encode_slowly(&pieces, &text), "{:?}", String::from_utf8_lossy(&text));
            assert_eq!(read.decode(None, &tokens), text);
            let parts: Vec<u8> =
                tokens.windows(2).flat_map(|pair| read.decode(Some(pair[0]), &pair[1..])).collect();
            assert_eq!(parts, text);
        }
    }
}

/// The program of llama2.c prints these numbers.
#[test]
fn tok512_has_the_tokens_of_llama2_c() {
    let Some(read) = tok512() else { return };
    assert_eq!(read.tokenizer().vocab(), 512);
    let texts: [(&str, &[i32]); 3] = [
        ("Once upon a time", &[1, 403, 407, 261, 378]),
        (
            "Lily's cat said: \"Hello, world!\" 123",
            &[
                1, 317, 439, 419, 280, 294, 336, 467, 313, 440, 411, 306, 414, 432, 263, 304, 341, 443, 436,
                410, 475, 479, 472,
            ],
        ),
        ("é…🦀\n\nThe end.", &[1, 410, 485, 486, 243, 162, 169, 131, 13, 13, 434, 260, 344, 264, 426]),
    ];
    for (text, tokens) in texts {
        assert_eq!(read.encode(text.as_bytes(), true, false), tokens, "{text}");
    }
}

/// Of a text of a million bytes, each pair is looked at a few times.
#[test]
fn a_long_text_takes_no_longer_a_byte() {
    let read = small();
    let text = b"abab bbaa".repeat(1 << 17);
    let tokens = read.encode(&text, true, false);
    assert_eq!(read.decode(None, &tokens), text);
}

#[test]
fn the_file_that_is_written_is_the_one_that_was_read() {
    for read in [Some(small()), tok512()].into_iter().flatten() {
        assert_eq!(written(&all_pieces(&read)).unwrap(), read.file);
    }
}

fn refused(file: &[u8]) -> Llama2cError {
    match Tokenizer::index_len(file) {
        Err(Error::Llama2c(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// The file does not say how many tokens it has, so it may end after any entry, if it has the bytes.
#[test]
fn a_file_that_is_cut_short_is_refused() {
    let file = small().file;
    let mut ends = vec![4];
    ends.extend(all_pieces(&small()).iter().scan(4, |end, (text, _)| {
        *end += 8 + text.len();
        Some(*end)
    }));
    for length in 0..file.len() {
        match ends.iter().position(|end| *end == length) {
            Some(vocab) if vocab >= 259 => assert!(Tokenizer::index_len(&file[..length]).is_ok()),
            Some(vocab) => {
                let error = Llama2cError::Vocab { given: vocab, wanted: 259 };
                assert_eq!(refused(&file[..length]), error);
            }
            None => {
                let error = refused(&file[..length]);
                let Llama2cError::Truncated { given, wanted } = error else { panic!("{error}") };
                assert!(given == length && wanted > length, "{error}");
            }
        }
    }
}

#[test]
fn lengths_that_lie_are_refused() {
    let file = small().file;
    let with_length = |length: i32| {
        let mut file = file.clone();
        file[8..12].copy_from_slice(&length.to_le_bytes());
        refused(&file)
    };
    for length in [i32::MIN, -1, 0, 7, i32::MAX] {
        let error = Llama2cError::Piece { token: 0, given: length.into(), most: 6 };
        assert_eq!(with_length(length), error);
    }
    // The longest length may lie too.
    let mut file = file.clone();
    file[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(Tokenizer::index_len(&file).is_ok());
    file[8..12].copy_from_slice(&i32::MAX.to_le_bytes());
    let wanted = 12 + i32::MAX as usize;
    assert_eq!(refused(&file), Llama2cError::Truncated { given: file.len(), wanted });
}

#[test]
fn a_vocabulary_without_bytes_is_refused() {
    let mut few = pieces(&[]);
    few.pop();
    let error = Llama2cError::Vocab { given: 258, wanted: 259 };
    assert_eq!(written(&few), Err(error.into()));
    let mut other = pieces(&[]);
    other[13].0 = b"<0x0a>".to_vec();
    assert_eq!(written(&other), Err(Llama2cError::Byte { token: 13 }.into()));
    assert_eq!(Llama2cError::Byte { token: 13 }.to_string(), "token 13 is not <0x0A>");
    let mut empty = pieces(&SMALL);
    empty[260].0.clear();
    let error = Llama2cError::Piece { token: 260, given: 0, most: i32::MAX as u32 };
    assert_eq!(written(&empty), Err(error.into()));
}

#[test]
fn short_buffers_and_foreign_tokens_are_refused_and_nothing_is_written() {
    let read = small();
    let buffer = |what, given, wanted| Error::Buffer { what, given, wanted };

    let mut index = vec![7; read.index.len() - 1];
    let error = Tokenizer::new(&read.file, &mut index).unwrap_err();
    assert_eq!(error, buffer("index", read.index.len() - 1, read.index.len()));
    assert!(index.iter().all(|number| *number == 7));

    let mut tokens = vec![-7; Tokenizer::room(3) - 1];
    let error = read.tokenizer().encode(b"aba", true, true, &mut tokens);
    assert_eq!(error, Err(buffer("tokens", 17, 18)));
    assert!(tokens.iter().all(|token| *token == -7));

    let mut bytes = [7; 2];
    assert_eq!(read.tokenizer().decode(None, &[token("aba")], &mut bytes), Err(buffer("bytes", 2, 3)));
    for foreign in [-1, read.tokenizer().vocab() as i32, i32::MIN, i32::MAX] {
        let error = Error::Token { index: 1, token: foreign.into(), vocab: 271 };
        assert_eq!(read.tokenizer().decode(None, &[token("a"), foreign], &mut bytes), Err(error));
    }
    assert_eq!(bytes, [7; 2]);

    let pieces = pieces(&SMALL);
    let pieces = pieces.iter().map(|(text, score)| Piece { text, score: *score });
    let mut file = vec![7; read.file.len() - 1];
    let error = Tokenizer::write(pieces, &mut file);
    assert_eq!(error, Err(buffer("file", read.file.len() - 1, read.file.len())));
    assert!(file.iter().all(|byte| *byte == 7));
}
