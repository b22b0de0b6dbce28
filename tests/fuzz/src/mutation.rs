//! Makes new inputs out of old ones.

/// The longest input.
const MAX_LENGTH: usize = 4096;
/// Numbers at which readers tend to break.
const NUMBERS: [&[u8]; 12] = [
    b"0",
    b"-1",
    b"1",
    b"127",
    b"256",
    b"4294967296",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"18446744073709551616",
    b"1e999",
    b"0.5",
    b"NaN",
];

/// A source of changes that depends on nothing but its seed.
pub(crate) struct Mutator {
    state: u64,
    words: &'static [&'static [u8]],
}

impl Mutator {
    pub(crate) fn new(seed: u64, words: &'static [&'static [u8]]) -> Self {
        Mutator { state: seed | 1, words }
    }

    fn next(&mut self) -> u64 {
        // xorshift64*
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`; 0 when there is none.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        if limit == 0 { 0 } else { (self.next() >> 16) as usize % limit }
    }

    /// One of the corpus, changed one to eight times.
    pub(crate) fn mutate(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let place = self.below(corpus.len());
        let mut input = corpus[place].clone();
        for _ in 0..=self.below(8) {
            self.change(&mut input, corpus);
        }
        input.truncate(MAX_LENGTH);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        let end = (at + self.below(16)).min(input.len());
        match self.below(8) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = self.next() as u8,
            2 => drop(input.drain(at..end)),
            3 => {
                let piece = input[at..end].to_vec();
                for _ in 0..=self.below(4) {
                    input.splice(at..at, piece.iter().copied());
                }
            }
            4 => {
                let word = self.words[self.below(self.words.len())];
                input.splice(at..at, word.iter().copied());
            }
            5 => {
                let number = NUMBERS[self.below(NUMBERS.len())];
                input.splice(at..end, number.iter().copied());
            }
            6 => {
                let other = &corpus[self.below(corpus.len())];
                let from = self.below(other.len());
                let piece = &other[from..(from + self.below(64)).min(other.len())];
                input.splice(at..end, piece.iter().copied());
            }
            _ => {
                let bytes = self.next().to_le_bytes();
                let count = self.below(bytes.len());
                input.splice(at..at, bytes[..count].iter().copied());
            }
        }
    }
}
