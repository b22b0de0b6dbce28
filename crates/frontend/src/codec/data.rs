//! The `data` of a tensor in JSON, read straight into the tensor's memory: flat, or nested as the shape says.

use half::{bf16, f16};
use inference::{DataType, Element, Error, Result, Shape, Tensor};
use smallvec::SmallVec;

use super::cursor::Cursor;
use super::number::{self, Float, Integer};

/// Reads the array at the cursor as a tensor of this type and shape.
pub(super) fn read(cursor: &mut Cursor<'_>, datatype: DataType, shape: &Shape) -> Result<Tensor> {
    let count = element_count(datatype, shape)?;
    match datatype {
        DataType::Bool => typed(cursor, shape, datatype, count, "true, false, 0 or 1", boolean),
        DataType::Uint8 => integers::<u8>(cursor, shape, datatype, count),
        DataType::Uint16 => integers::<u16>(cursor, shape, datatype, count),
        DataType::Uint32 => integers::<u32>(cursor, shape, datatype, count),
        DataType::Uint64 => integers::<u64>(cursor, shape, datatype, count),
        DataType::Int8 => integers::<i8>(cursor, shape, datatype, count),
        DataType::Int16 => integers::<i16>(cursor, shape, datatype, count),
        DataType::Int32 => integers::<i32>(cursor, shape, datatype, count),
        DataType::Int64 => integers::<i64>(cursor, shape, datatype, count),
        DataType::Fp16 => floats::<f16>(cursor, shape, datatype, count),
        DataType::Bf16 => floats::<bf16>(cursor, shape, datatype, count),
        DataType::Fp32 => floats::<f32>(cursor, shape, datatype, count),
        DataType::Fp64 => floats::<f64>(cursor, shape, datatype, count),
        DataType::Bytes => strings(cursor, shape, count),
    }
}

fn element_count(datatype: DataType, shape: &Shape) -> Result<usize> {
    let count = shape.element_count();
    count.filter(|count| count.checked_mul(datatype.size().unwrap_or(1)).is_some()).ok_or_else(|| {
        Error::invalid_argument(format!(
            "shape {shape} is negative or causes total element count to exceed maximum size of {}",
            usize::MAX
        ))
    })
}

fn integers<T: Integer + Element>(
    cursor: &mut Cursor<'_>,
    shape: &Shape,
    datatype: DataType,
    count: usize,
) -> Result<Tensor> {
    let what = match datatype.size() {
        Some(size) if T::from_parts(true, 1).is_some() => format!("an integer of {} bits", size * 8),
        size => format!("an unsigned integer of {} bits", size.unwrap_or(0) * 8),
    };
    typed(cursor, shape, datatype, count, &what, number::integer::<T>)
}

fn floats<T: Float + Element>(
    cursor: &mut Cursor<'_>,
    shape: &Shape,
    datatype: DataType,
    count: usize,
) -> Result<Tensor> {
    typed(cursor, shape, datatype, count, "a number in its range", number::float::<T>)
}

fn boolean(text: &[u8]) -> Option<(u8, usize)> {
    let words: [(&[u8], u8); 4] = [(b"true", 1), (b"false", 0), (b"1", 1), (b"0", 0)];
    let (word, value) = words.into_iter().find(|(word, _)| text.starts_with(word))?;
    Some((value, word.len()))
}

/// Reads elements with `parse`, which is given the text at an element and returns its value and length.
fn typed<T: Element>(
    cursor: &mut Cursor<'_>,
    shape: &Shape,
    datatype: DataType,
    count: usize,
    what: &str,
    parse: impl Fn(&[u8]) -> Option<(T, usize)>,
) -> Result<Tensor> {
    // An element takes at least two bytes of text, so that no shape makes us reserve more than the body's own size allows.
    let mut elements: Vec<T> = Vec::with_capacity(count.min(cursor.rest().len() / 2 + 1));
    let mut nesting = Nesting::default();
    nested(cursor, &mut nesting, 0, &mut |cursor: &mut Cursor<'_>| {
        let before = elements.len();
        run(cursor, &mut elements, count, datatype, what, &parse)?;
        Ok(elements.len() - before)
    })?;
    check(cursor, elements.len(), count, &nesting, shape)?;
    Tensor::from_vec_as(datatype, shape.clone(), elements)
}

/// Reads one row: elements up to the `]`, which it leaves. This loop is where large requests spend their time.
fn run<T: Element>(
    cursor: &mut Cursor<'_>,
    elements: &mut Vec<T>,
    limit: usize,
    datatype: DataType,
    what: &str,
    parse: &impl Fn(&[u8]) -> Option<(T, usize)>,
) -> Result<()> {
    let text = cursor.rest();
    let mut rest = text;
    let outcome = loop {
        rest = after_white_space(rest);
        let Some((value, length)) = parse(rest) else { break Some(true) };
        if elements.len() == limit {
            break Some(false);
        }
        elements.push(value);
        rest = after_white_space(&rest[length..]);
        match rest {
            [b',', after @ ..] => rest = after,
            _ => break None,
        }
    };
    cursor.advance(text.len() - rest.len());
    match outcome {
        None => Ok(()),
        Some(true) => Err(cursor.expected(&format!("{what} ({datatype}) as element {}", elements.len()))),
        Some(false) => Err(cursor.fault(&format!("'data' holds more than the {limit} elements of the shape"))),
    }
}

#[inline]
fn after_white_space(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\n' | b'\r' | b'\t', after @ ..] = text {
        text = after;
    }
    text
}

fn strings(cursor: &mut Cursor<'_>, shape: &Shape, count: usize) -> Result<Tensor> {
    let mut data: Vec<u8> = Vec::new();
    let mut read = 0;
    let mut nesting = Nesting::default();
    nested(cursor, &mut nesting, 0, &mut |cursor: &mut Cursor<'_>| {
        let before = read;
        loop {
            if cursor.peek() != Some(b'"') {
                return Err(cursor.expected(&format!("a string (BYTES) as element {read}")));
            }
            let text = cursor.string("a string")?;
            let length = u32::try_from(text.len())
                .map_err(|_| Error::invalid_argument(format!("element {read} is longer than 4 GiB")))?;
            data.extend_from_slice(&length.to_le_bytes());
            data.extend_from_slice(text.as_bytes());
            read += 1;
            if !cursor.take(b',') {
                return Ok(read - before);
            }
        }
    })?;
    check(cursor, read, count, &nesting, shape)?;
    Tensor::new(DataType::Bytes, shape.clone(), data.into())
}

/// How long the arrays at each depth are; all those of one depth must agree.
#[derive(Default)]
struct Nesting {
    lengths: SmallVec<[Option<usize>; 8]>,
    /// At which depth the elements stand.
    leaves: Option<usize>,
}

impl Nesting {
    fn record(&mut self, depth: usize, length: usize) -> std::result::Result<(), String> {
        if self.lengths.len() <= depth {
            self.lengths.resize(depth + 1, None);
        }
        match self.lengths[depth].replace(length) {
            Some(other) if other != length => Err(format!(
                "'data' is ragged: rows of {other} and of {length} elements at nesting depth {}",
                depth + 1
            )),
            _ => Ok(()),
        }
    }

    fn record_leaves(&mut self, depth: usize) -> std::result::Result<(), String> {
        match self.leaves.replace(depth) {
            Some(other) if other != depth => {
                Err(format!("'data' is ragged: elements at nesting depths {} and {}", other + 1, depth + 1))
            }
            _ => Ok(()),
        }
    }
}

/// Reads an array of arrays of … of rows; `row` reads the elements of one.
fn nested<'a>(
    cursor: &mut Cursor<'a>,
    nesting: &mut Nesting,
    depth: usize,
    row: &mut dyn FnMut(&mut Cursor<'a>) -> Result<usize>,
) -> Result<()> {
    if !cursor.take(b'[') {
        return Err(cursor.expected("'data' as an array"));
    }
    cursor.enter()?;
    let length = match cursor.peek() {
        Some(b']') => 0,
        Some(b'[') => {
            let mut length = 0;
            loop {
                nested(cursor, nesting, depth + 1, row)?;
                length += 1;
                if !cursor.take(b',') {
                    break length;
                }
            }
        }
        _ => {
            nesting.record_leaves(depth).map_err(|message| cursor.fault(&message))?;
            row(cursor)?
        }
    };
    nesting.record(depth, length).map_err(|message| cursor.fault(&message))?;
    if !cursor.take(b']') {
        return Err(cursor.expected("',' or ']' in 'data'"));
    }
    cursor.leave();
    Ok(())
}

fn check(cursor: &Cursor<'_>, got: usize, want: usize, nesting: &Nesting, shape: &Shape) -> Result<()> {
    if got != want {
        return Err(cursor.fault(&format!(
            "shape does not match true shape of 'data' field: got {got} elements, expected {want} for shape {shape}"
        )));
    }
    if want != 0 && !fits(&nesting.lengths, shape) {
        let lengths: Shape = nesting.lengths.iter().map(|length| length.unwrap_or(0) as i64).collect();
        return Err(cursor.fault(&format!("'data' is nested as {lengths}, which does not match shape {shape}")));
    }
    Ok(())
}

/// Whether arrays nested in these lengths are the shape, possibly with neighbouring dimensions taken together (all of them
/// together is flat) and with dimensions of 1 left out or added.
fn fits(lengths: &[Option<usize>], shape: &Shape) -> bool {
    let mut product = 1usize;
    let mut bounds: SmallVec<[usize; 8]> = SmallVec::new();
    for dim in shape.iter() {
        product = product.saturating_mul(usize::try_from(*dim).unwrap_or(0));
        bounds.push(product);
    }
    let mut product = 1usize;
    lengths.iter().all(|length| {
        product = product.saturating_mul(length.unwrap_or(0));
        product == 1 || bounds.contains(&product)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_may_be_coarser_than_the_shape_but_not_another() {
        let cases: [(&[usize], &[i64], bool); 8] = [
            (&[6], &[2, 3], true),
            (&[2, 3], &[2, 3], true),
            (&[3, 2], &[2, 3], false),
            (&[2, 3], &[1, 2, 3], true),
            (&[1, 6], &[2, 3], true),
            (&[2, 12], &[2, 3, 4], true),
            (&[6, 4], &[2, 3, 4], true),
            (&[4, 6], &[2, 3, 4], false),
        ];
        for (lengths, shape, expected) in cases {
            let lengths: Vec<_> = lengths.iter().copied().map(Some).collect();
            assert_eq!(fits(&lengths, &Shape::new(shape)), expected, "{lengths:?} {shape:?}");
        }
    }
}
