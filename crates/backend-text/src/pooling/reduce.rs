//! The arithmetic of pooling: plain loops over rows, which the compiler turns into vector instructions. Pure.

use half::f16;

/// How the tokens of a row become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The mean of the tokens that count.
    Mean,
    /// The first token that counts.
    Cls,
    /// The largest value of each component over the tokens that count.
    Max,
}

/// A component of an embedding, read from bytes of any alignment.
pub(crate) trait Component {
    const SIZE: usize;

    /// Applies `op` to each place of `into` and the component that stands in `bytes` there.
    fn fold(bytes: &[u8], into: &mut [f32], op: impl Fn(&mut f32, f32));
}

impl Component for f32 {
    const SIZE: usize = 4;

    fn fold(bytes: &[u8], into: &mut [f32], op: impl Fn(&mut f32, f32)) {
        let components = bytes.as_chunks::<4>().0;
        into.iter_mut().zip(components).for_each(|(place, bytes)| op(place, f32::from_le_bytes(*bytes)));
    }
}

impl Component for f16 {
    const SIZE: usize = 2;

    fn fold(bytes: &[u8], into: &mut [f32], op: impl Fn(&mut f32, f32)) {
        let components = bytes.as_chunks::<2>().0;
        into.iter_mut().zip(components).for_each(|(place, bytes)| op(place, f16::from_le_bytes(*bytes).to_f32()));
    }
}

/// Pools `embeddings` [rows, tokens, width] over `mask` [rows, tokens] into `vectors` [rows, width], which hold 0. A row
/// in which no token counts stays 0.
pub(crate) fn pool<C: Component>(
    mode: Mode,
    embeddings: &[u8],
    mask: &[bool],
    tokens: usize,
    width: usize,
    vectors: &mut [f32],
) {
    if tokens == 0 || width == 0 {
        return;
    }
    let token_bytes = width * C::SIZE;
    let texts = embeddings.chunks_exact(tokens * token_bytes).zip(mask.chunks_exact(tokens));
    for ((text, mask), vector) in texts.zip(vectors.chunks_exact_mut(width)) {
        let embeddings = text.chunks_exact(token_bytes).zip(mask);
        pool_text::<C>(mode, embeddings.filter(|(_, counts)| **counts).map(|(token, _)| token), vector);
    }
}

fn pool_text<'a, C: Component>(mode: Mode, mut tokens: impl Iterator<Item = &'a [u8]>, vector: &mut [f32]) {
    let Some(first) = tokens.next() else { return };
    C::fold(first, vector, |place, value| *place = value);
    match mode {
        Mode::Cls => {}
        Mode::Max => tokens.for_each(|token| C::fold(token, vector, |place, value| *place = place.max(value))),
        Mode::Mean => {
            let mut count = 1f32;
            for token in tokens {
                C::fold(token, vector, |place, value| *place += value);
                count += 1.0;
            }
            vector.iter_mut().for_each(|place| *place /= count);
        }
    }
}

/// Scales a vector to length 1; one that is shorter than 1e-12 is only scaled up by that (as `torch` does), so 0 stays 0.
pub(crate) fn normalize(vector: &mut [f32]) {
    let squares: f32 = vector.iter().map(|component| component * component).sum();
    let length = squares.sqrt().max(1e-12);
    vector.iter_mut().for_each(|component| *component /= length);
}
