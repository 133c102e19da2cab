//! The tokenizer: byte-pair encoding with a score for each token, as SentencePiece has it.
//!
//! The file has the length of the longest token (u32), and for each token its score (f32), its length (i32) and its
//! bytes, all little-endian. The first tokens are `<unk>`, BOS, EOS and the 256 bytes, as `<0x00>` to `<0xFF>`.

use core::cmp::Ordering;

use super::word;
use crate::error::{Error, Llama2cError, at_least};

/// The token that begins a text.
pub const BOS: i32 = 1;
/// The token that ends a text.
pub const EOS: i32 = 2;

/// The first byte's token.
const FIRST_BYTE: usize = 3;
/// The first token that stands for a piece of text.
const FIRST_PIECE: usize = FIRST_BYTE + 256;

/// Pairs merge only above this score, as in llama2.c.
const LEAST_SCORE: f32 = -1e10;

/// The space that each text gets in front, so that its first word is the token of a word inside a text.
const PREFIX: &[u8] = b" ";

/// A token of the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Piece<'a> {
    /// Its text.
    pub text: &'a [u8],
    /// Of two possible merges, the one whose result has the higher score comes first.
    pub score: f32,
}

/// A tokenizer in a file's bytes, with an index of the caller's.
///
/// Encoding takes O(n log n) steps and O(n) searches in the sorted vocabulary for a text of n bytes.
///
/// ```no_run
/// use jostle::llama2c::Tokenizer;
/// let file = std::fs::read("tok512.bin").unwrap();
/// let mut index = vec![0; Tokenizer::index_len(&file)?];
/// let tokenizer = Tokenizer::new(&file, &mut index)?;
///
/// let text = b"Once upon a time";
/// let mut tokens = vec![0; Tokenizer::room(text.len())];
/// let count = tokenizer.encode(text, true, false, &mut tokens)?;
/// let mut bytes = [0; 64];
/// let length = tokenizer.decode(None, &tokens[..count], &mut bytes)?;
/// assert_eq!(bytes[..length], text[..]);
/// # Ok::<(), jostle::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Tokenizer<'a> {
    file: &'a [u8],
    /// For each token the place of its entry in the file.
    places: &'a [u32],
    /// The pieces in the order of their texts.
    sorted: &'a [u32],
}

impl<'a> Tokenizer<'a> {
    /// Checks a file. Returns the length of the index that it needs.
    pub fn index_len(file: &[u8]) -> Result<usize, Error> {
        let vocab = check(Entries::new(file)?.map(|entry| entry.map(|(_, piece)| piece)))?;
        Ok(2 * vocab - FIRST_PIECE)
    }

    /// V, for an index of this length.
    pub const fn vocab_of(index_len: usize) -> usize {
        // The index has V places and the sorted pieces.
        index_len.saturating_add(FIRST_PIECE) / 2
    }

    /// Fills the index. [`Error::Llama2c`] if the bytes are not a tokenizer, [`Error::Buffer`] for an index that is too
    /// short. Nothing is written then.
    pub fn new(file: &'a [u8], index: &'a mut [u32]) -> Result<Tokenizer<'a>, Error> {
        let length = Tokenizer::index_len(file)?;
        at_least("index", index.len(), length)?;
        let index = index.get_mut(..length).unwrap_or_default();
        let (places, sorted) = index.split_at_mut_checked(Self::vocab_of(length)).unwrap_or_default();
        for (place, entry) in places.iter_mut().zip(Entries::new(file)?) {
            *place = entry?.0 as u32;
        }
        for (token, number) in sorted.iter_mut().zip(FIRST_PIECE as u32..) {
            *token = number;
        }
        sort(sorted, |a, b| text(file, places, a).iter().cmp(text(file, places, b)).then(a.cmp(&b)).is_lt());
        Ok(Tokenizer { file, places, sorted })
    }

    /// With an index that [`Tokenizer::new`] has filled for this file. Another index makes wrong texts and tokens.
    /// Hidden: the other interfaces keep their index with it.
    #[doc(hidden)]
    pub fn with_index(file: &'a [u8], index: &'a [u32]) -> Tokenizer<'a> {
        let (places, sorted) = index.split_at_checked(Self::vocab_of(index.len())).unwrap_or((index, &[]));
        Tokenizer { file, places, sorted }
    }

    /// V: the number of tokens.
    pub fn vocab(&self) -> usize {
        self.places.len()
    }

    /// A token's entry in the file; `None` outside of `0..vocab`.
    pub fn piece(&self, token: i32) -> Option<Piece<'a>> {
        let place = self.places.get(usize::try_from(token).ok()?)?;
        read(self.file, *place as usize)
    }

    /// The room in `tokens` that [`Tokenizer::encode`] needs for a text of so many bytes.
    pub const fn room(bytes: usize) -> usize {
        bytes.saturating_mul(4).saturating_add(6)
    }

    /// Writes a text's tokens to the front of `tokens`, and returns their number. Begins with [`BOS`] and ends with [`EOS`]
    /// on request. `tokens` must be as long as [`Tokenizer::room`] says; the rest of it is scratch memory.
    ///
    /// A character without a token becomes its bytes. The text gets a space in front, which [`Tokenizer::decode`] removes
    /// after `BOS`.
    pub fn encode(&self, text: &[u8], bos: bool, eos: bool, tokens: &mut [i32]) -> Result<usize, Error> {
        at_least("tokens", tokens.len(), Self::room(text.len()))?;
        if text.len() >= i32::MAX as usize {
            return Err(Error::TooLarge { what: "text" });
        }
        let most = text.len() + PREFIX.len();
        let (front, work) = tokens.split_at_mut_checked(most + 2).unwrap_or_default();
        let mut output = Output { tokens: front, count: 0 };
        if bos {
            output.push(BOS);
        }
        let first = output.count;
        let prefix = if text.is_empty() { &[] } else { PREFIX };
        for character in characters(prefix).chain(characters(text)) {
            match self.find(character, &[]) {
                Some(token) => output.push(token),
                None => character.iter().for_each(|byte| output.push(FIRST_BYTE as i32 + i32::from(*byte))),
            }
        }
        let symbols = output.tokens.get_mut(first..output.count).unwrap_or_default();
        output.count = first + Merging::new(self, symbols, work).run();
        if eos {
            output.push(EOS);
        }
        Ok(output.count)
    }

    /// The length of the text that [`Tokenizer::decode`] writes.
    pub fn decoded_len(&self, previous: Option<i32>, tokens: &[i32]) -> Result<usize, Error> {
        let mut length = 0_usize;
        for (index, text) in self.texts(previous, tokens).enumerate() {
            let Some(text) = text else {
                let token = tokens.get(index).copied().map_or(-1, i64::from);
                return Err(Error::Token { index, token, vocab: self.vocab() });
            };
            length = length.saturating_add(text.len());
        }
        Ok(length)
    }

    /// Writes the text of tokens to the front of `bytes`, and returns its length. [`BOS`] and [`EOS`] have no text. After
    /// `BOS`, a space in front is removed; `previous` is the token before the first one, if there is one. A piece of a text
    /// may end within a character.
    ///
    /// [`Error::Token`] for a token outside of `0..vocab`, [`Error::Buffer`] if `bytes` is too short. Nothing is written then.
    pub fn decode(&self, previous: Option<i32>, tokens: &[i32], bytes: &mut [u8]) -> Result<usize, Error> {
        let length = self.decoded_len(previous, tokens)?;
        at_least("bytes", bytes.len(), length)?;
        let text = self.texts(previous, tokens).flatten().flatten();
        bytes.iter_mut().zip(text).for_each(|(byte, of_text)| *byte = *of_text);
        Ok(length)
    }

    /// The text of each token; `None` for one outside of the vocabulary.
    fn texts(&self, previous: Option<i32>, tokens: &[i32]) -> impl Iterator<Item = Option<&'a [u8]>> {
        let before = core::iter::once(previous).chain(tokens.iter().map(|token| Some(*token)));
        before.zip(tokens).map(|(previous, token)| {
            let text = self.text_of(*token)?;
            let without = if previous == Some(BOS) { text.strip_prefix(PREFIX) } else { None };
            Some(without.unwrap_or(text))
        })
    }

    fn text_of(&self, token: i32) -> Option<&'a [u8]> {
        let number = usize::try_from(token).ok().filter(|number| *number < self.vocab())?;
        match number.checked_sub(FIRST_BYTE) {
            Some(byte) if byte < BYTES.len() => BYTES.get(byte..=byte),
            _ if [BOS, EOS].contains(&token) => Some(&[]),
            _ => self.piece(token).map(|piece| piece.text),
        }
    }

    /// The token of the text `front` + `back`.
    fn find(&self, front: &[u8], back: &[u8]) -> Option<i32> {
        // By iterators: slices would need C's memcmp.
        let compare = |token| text(self.file, self.places, token).iter().cmp(front.iter().chain(back));
        let place = self.sorted.partition_point(|token| compare(*token) == Ordering::Less);
        let token = self.sorted.get(place).copied().filter(|token| compare(*token) == Ordering::Equal);
        token.and_then(|token| i32::try_from(token).ok())
    }

    /// The token that two neighbours merge to, and its score. Bytes and BOS do not merge.
    fn merge(&self, front: i32, back: i32) -> Option<(i32, f32)> {
        let text = |token| {
            let is_piece = usize::try_from(token).is_ok_and(|number| number >= FIRST_PIECE);
            if is_piece { self.piece(token).map(|piece| piece.text) } else { None }
        };
        let token = self.find(text(front)?, text(back)?)?;
        let score = self.piece(token)?.score;
        (score > LEAST_SCORE).then_some((token, score))
    }

    /// Checks these tokens, and returns the length of their tokenizer file.
    pub fn file_len<'p>(pieces: impl Iterator<Item = Piece<'p>>) -> Result<usize, Error> {
        let mut length = HEADER;
        check(pieces.map(|piece| {
            length = length.saturating_add(ENTRY).saturating_add(piece.text.len());
            Ok(piece)
        }))?;
        if length > u32::MAX as usize { Err(Error::TooLarge { what: "file" }) } else { Ok(length) }
    }

    /// Checks these tokens, writes their tokenizer file to the front of `file`, and returns its length.
    pub fn write<'p>(
        pieces: impl Iterator<Item = Piece<'p>> + Clone,
        file: &mut [u8],
    ) -> Result<usize, Error> {
        let length = Tokenizer::file_len(pieces.clone())?;
        at_least("file", file.len(), length)?;
        let longest = pieces.clone().map(|piece| piece.text.len()).max().unwrap_or(0) as u32;
        let mut rest = file;
        let mut put = |bytes: &[u8]| {
            if let Some(place) = rest.split_off_mut(..bytes.len()) {
                place.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
            }
        };
        put(&longest.to_le_bytes());
        for Piece { text, score } in pieces {
            put(&score.to_le_bytes());
            put(&(text.len() as u32).to_le_bytes());
            put(text);
        }
        Ok(length)
    }
}

/// Every byte, for slices of one.
static BYTES: [u8; 256] = {
    let (mut bytes, mut byte) = ([0; 256], 0);
    while byte < bytes.len() {
        bytes[byte] = byte as u8;
        byte += 1;
    }
    bytes
};

/// The bytes before the first entry.
const HEADER: usize = 4;
/// The bytes of an entry before its text.
const ENTRY: usize = 8;

/// The entry at a place of a checked file.
fn read(file: &[u8], at: usize) -> Option<Piece<'_>> {
    let score = f32::from_le_bytes(word(file, at)?);
    let length = u32::from_le_bytes(word(file, at + 4)?) as usize;
    let text = file.get(at + ENTRY..)?.get(..length)?;
    Some(Piece { text, score })
}

/// A token's text in a checked file.
fn text<'f>(file: &'f [u8], places: &[u32], token: u32) -> &'f [u8] {
    let piece = places.get(token as usize).and_then(|place| read(file, *place as usize));
    piece.map_or(&[], |piece| piece.text)
}

/// The entries of a file with their places, until the first error.
struct Entries<'f> {
    file: &'f [u8],
    /// The length of the longest token, as the file says.
    longest: u32,
    at: usize,
    token: usize,
}

impl<'f> Entries<'f> {
    fn new(file: &'f [u8]) -> Result<Entries<'f>, Error> {
        let Some(longest) = word(file, 0) else {
            return Err(Llama2cError::Truncated { given: file.len(), wanted: HEADER }.into());
        };
        if u32::try_from(file.len()).is_err() {
            return Err(Error::TooLarge { what: "file" });
        }
        Ok(Entries { file, longest: u32::from_le_bytes(longest), at: HEADER, token: 0 })
    }

    fn entry(&mut self) -> Result<(usize, Piece<'f>), Error> {
        let (file, at, token) = (self.file, self.at, self.token);
        let truncated = |wanted| Llama2cError::Truncated { given: file.len(), wanted };
        let begin = at.saturating_add(ENTRY);
        let length = word(file, at.saturating_add(4)).ok_or(truncated(begin))?;
        let length = i32::from_le_bytes(length);
        if length <= 0 || length.cast_unsigned() > self.longest {
            let (given, most) = (length.into(), self.longest);
            return Err(Llama2cError::Piece { token, given, most }.into());
        }
        let end = begin.saturating_add(length.cast_unsigned() as usize);
        let piece = read(file, at).ok_or(truncated(end))?;
        (self.at, self.token) = (end, token + 1);
        Ok((at, piece))
    }
}

impl<'f> Iterator for Entries<'f> {
    type Item = Result<(usize, Piece<'f>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.file.len() {
            return None;
        }
        let entry = self.entry();
        if entry.is_err() {
            self.at = usize::MAX;
        }
        Some(entry)
    }
}

/// Checks what all tokenizers have in common. Returns the number of tokens.
fn check<'p>(pieces: impl Iterator<Item = Result<Piece<'p>, Error>>) -> Result<usize, Error> {
    let mut vocab = 0_usize;
    for piece in pieces {
        let Piece { text, .. } = piece?;
        let token = vocab;
        if text.is_empty() || i32::try_from(text.len()).is_err() {
            let given = i64::try_from(text.len()).unwrap_or(i64::MAX);
            return Err(Llama2cError::Piece { token, given, most: i32::MAX as u32 }.into());
        }
        let byte = token.checked_sub(FIRST_BYTE).and_then(|byte| u8::try_from(byte).ok());
        if byte.is_some_and(|byte| text != name_of(byte)) {
            return Err(Llama2cError::Byte { token }.into());
        }
        vocab += 1;
    }
    let wanted = FIRST_PIECE;
    if vocab < wanted { Err(Llama2cError::Vocab { given: vocab, wanted }.into()) } else { Ok(vocab) }
}

/// The text of a byte's token.
fn name_of(byte: u8) -> [u8; 6] {
    let digit = |digit: u8| if digit < 10 { b'0' + digit } else { b'A' - 10 + digit };
    [b'<', b'0', b'x', digit(byte >> 4), digit(byte & 15), b'>']
}

/// A text's characters. Bytes that are not UTF-8 come in pieces of at most four, as in llama2.c.
fn characters(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    core::iter::from_fn(move || {
        let is_inside = |byte: &u8| *byte & 0xC0 == 0x80;
        let more = rest.iter().skip(1).take(3).take_while(|byte| is_inside(byte)).count();
        rest.split_off(..(1 + more).min(rest.len())).filter(|character| !character.is_empty())
    })
}

/// Heapsort: a compiler cannot prove that the language's own sort does not panic.
fn sort(numbers: &mut [u32], less: impl Fn(u32, u32) -> bool) {
    for parent in (0..numbers.len() / 2).rev() {
        sift_down(numbers, parent, &less);
    }
    let mut heap = numbers;
    while let [first, .., last] = heap {
        core::mem::swap(first, last);
        heap.split_off_last_mut();
        sift_down(heap, 0, &less);
    }
}

/// Sifts the number at `place` down a heap with the greatest number in front.
fn sift_down(heap: &mut [u32], mut place: usize, less: &impl Fn(u32, u32) -> bool) {
    let Some(&number) = heap.get(place) else { return };
    loop {
        let (mut greatest, mut from) = (number, place);
        for place in [2 * place + 1, 2 * place + 2] {
            if let Some(&child) = heap.get(place)
                && less(greatest, child)
            {
                (greatest, from) = (child, place);
            }
        }
        if let Some(at) = heap.get_mut(place) {
            *at = greatest;
        }
        if from == place {
            return;
        }
        place = from;
    }
}

/// Tokens that are written one by one.
struct Output<'t> {
    tokens: &'t mut [i32],
    count: usize,
}

impl Output<'_> {
    fn push(&mut self, token: i32) {
        if let Some(place) = self.tokens.get_mut(self.count) {
            *place = token;
            self.count += 1;
        }
    }
}

/// No pair of this symbol and the next one merges.
const NONE: i32 = -1;

/// The symbols of a text while they merge. A symbol stays at the place of its first part.
struct Merging<'t, 'f> {
    tokenizer: &'t Tokenizer<'f>,
    /// Each symbol's token.
    symbols: &'t mut [i32],
    /// The number of places of a symbol, at its first and its last place.
    lengths: &'t mut [i32],
    /// The token that a symbol and the next one merge to, or [`NONE`].
    merges: &'t mut [i32],
    /// A tournament tree. Node n holds the place of the better merge of nodes 2n and 2n + 1; node 1 holds the best place of
    /// all. The leaves, which are not stored, are the places: leaf `symbols.len()` is place 0.
    best: &'t mut [i32],
}

impl<'t, 'f> Merging<'t, 'f> {
    fn new(tokenizer: &'t Tokenizer<'f>, symbols: &'t mut [i32], work: &'t mut [i32]) -> Merging<'t, 'f> {
        let count = symbols.len();
        let (lengths, work) = work.split_at_mut_checked(count).unwrap_or_default();
        let (merges, work) = work.split_at_mut_checked(count).unwrap_or_default();
        let best = work.get_mut(..count).unwrap_or_default();
        lengths.fill(1);
        Merging { tokenizer, symbols, lengths, merges, best }
    }

    /// Merges until nothing more does. Returns the number of symbols, which are then at the front.
    fn run(mut self) -> usize {
        let count = self.symbols.len();
        (0..count).for_each(|place| self.look(place));
        (1..count).rev().for_each(|node| self.play(node));
        while let Some((place, token)) = self.best_merge() {
            let after = place + self.length(place);
            let length = self.length(place) + self.length(after);
            set(self.symbols, place, token);
            set(self.lengths, place, length as i32);
            set(self.lengths, place + length - 1, length as i32);
            set(self.merges, after, NONE);
            self.look(place);
            if let Some(last) = place.checked_sub(1) {
                let before = place.saturating_sub(self.length(last));
                self.look(before);
                self.replay(before);
            }
            self.replay(place);
            self.replay(after);
        }
        let (mut place, mut output) = (0, 0);
        while let Some(&token) = self.symbols.get(place) {
            set(self.symbols, output, token);
            (place, output) = (place + self.length(place), output + 1);
        }
        output
    }

    fn length(&self, place: usize) -> usize {
        self.lengths.get(place).map_or(1, |length| length.cast_unsigned() as usize)
    }

    /// Finds the merge of the symbol at `place` with the next one.
    fn look(&mut self, place: usize) {
        let after = place + self.length(place);
        let pair = self.symbols.get(place).zip(self.symbols.get(after));
        let merge = pair.and_then(|(front, back)| self.tokenizer.merge(*front, *back));
        set(self.merges, place, merge.map_or(NONE, |(token, _)| token));
    }

    /// The place and the token of the best merge.
    fn best_merge(&self) -> Option<(usize, i32)> {
        let place = self.winner(1);
        let token = self.merges.get(place).copied().filter(|token| *token != NONE);
        token.map(|token| (place, token))
    }

    /// The place of the best merge below a node.
    fn winner(&self, node: usize) -> usize {
        match node.checked_sub(self.symbols.len()) {
            Some(place) => place,
            None => self.best.get(node).map_or(0, |place| place.cast_unsigned() as usize),
        }
    }

    /// Decides a node. The higher score wins, and among equals the first place.
    fn play(&mut self, node: usize) {
        let score = |place: usize| {
            let token = self.merges.get(place).copied().unwrap_or(NONE);
            self.tokenizer.piece(token).map_or(f32::NEG_INFINITY, |piece| piece.score)
        };
        let (a, b) = (self.winner(2 * node), self.winner(2 * node + 1));
        let (x, y) = (score(a), score(b));
        let winner = if x > y || x == y && a < b { a } else { b };
        set(self.best, node, winner as i32);
    }

    /// Decides all nodes above a place.
    fn replay(&mut self, place: usize) {
        let mut node = (place + self.symbols.len()) / 2;
        while node > 0 {
            self.play(node);
            node /= 2;
        }
    }
}

fn set(numbers: &mut [i32], place: usize, number: i32) {
    if let Some(at) = numbers.get_mut(place) {
        *at = number;
    }
}
