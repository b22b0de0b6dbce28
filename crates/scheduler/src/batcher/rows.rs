//! Joins tensors along their first dimension and splits them again; pure.

use bytes::Bytes;
use inference::{DataType, Error, Result, Shape, Tensor};

/// The rows of all tensors in one: the only copy that batching makes. Types and all other dimensions must be equal.
///
/// # Errors
/// InvalidArgument when they are not, or when there is none.
pub(crate) fn join(tensors: &[&Tensor]) -> Result<Tensor> {
    let first = tensors.first().ok_or_else(|| Error::invalid_argument("no tensors to join"))?;
    let rest = first.shape().without_batch();
    let mut rows = 0i64;
    for tensor in tensors {
        let fits = tensor.datatype() == first.datatype()
            && tensor.shape().len() == first.shape().len()
            && tensor.shape().without_batch() == rest;
        let more = tensor.shape().first().copied().filter(|_| fits);
        rows = more.and_then(|more| rows.checked_add(more)).ok_or_else(|| {
            Error::invalid_argument(format!("shapes {} and {} cannot share a batch", first.shape(), tensor.shape()))
        })?;
    }
    let mut data = Vec::with_capacity(tensors.iter().map(|tensor| tensor.data().len()).sum());
    for tensor in tensors {
        data.extend_from_slice(tensor.data());
    }
    Tensor::new(first.datatype(), rest.with_batch(rows), Bytes::from(data))
}

/// One tensor for each of `rows`, in order; they share the bytes of the whole. `None` when the tensor's first dimension is
/// not their sum.
pub(crate) fn split(tensor: &Tensor, rows: &[u32]) -> Option<Vec<Tensor>> {
    let total: i64 = rows.iter().map(|rows| i64::from(*rows)).sum();
    if tensor.shape().first() != Some(&total) {
        return None;
    }
    let rest = tensor.shape().without_batch();
    let mut from = 0;
    rows.iter().map(|rows| cut(tensor, &mut from, rest.with_batch(i64::from(*rows)))).collect()
}

/// As many of the tensor's elements as `shape` has, from byte `from` on, which moves behind them; they share its bytes.
pub(crate) fn cut(tensor: &Tensor, from: &mut usize, shape: Shape) -> Option<Tensor> {
    let begin = *from;
    let length = length(tensor, begin, shape.element_count()?)?;
    *from = begin.checked_add(length)?;
    if *from > tensor.data().len() {
        return None;
    }
    Tensor::new(tensor.datatype(), shape, tensor.data().slice(begin..*from)).ok()
}

/// Bytes of so many elements that begin at byte `from`.
fn length(tensor: &Tensor, from: usize, elements: usize) -> Option<usize> {
    if let Some(size) = tensor.datatype().size() {
        return elements.checked_mul(size);
    }
    debug_assert_eq!(tensor.datatype(), DataType::Bytes, "every other type has a size");
    let mut end = from;
    for _ in 0..elements {
        let (prefix, _) = tensor.data().get(end..)?.split_first_chunk::<4>()?;
        end += 4 + usize::try_from(u32::from_le_bytes(*prefix)).ok()?;
    }
    Some(end - from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers(rows: usize, columns: usize) -> Tensor {
        let shape = Shape::from([rows as i64, columns as i64]);
        let elements = (0..rows * columns).map(|n| n as i32 - 3).collect();
        Tensor::from_vec::<i32>(shape, elements).expect("fits")
    }

    fn strings(rows: usize, columns: usize) -> Tensor {
        let elements: Vec<String> = (0..rows * columns).map(|n| "ä".repeat(n % 4)).collect();
        Tensor::from_strings(Shape::from([rows as i64, columns as i64]), &elements).expect("fits")
    }

    proptest! {
        #[test]
        fn what_is_joined_is_split_without_a_copy(rows in proptest::collection::vec(1u32..4, 1..6), columns in 0usize..3) {
            for make in [numbers, strings] {
                let parts: Vec<Tensor> = rows.iter().map(|rows| make(*rows as usize, columns)).collect();
                let whole = join(&parts.iter().collect::<Vec<_>>()).expect("equal shapes");
                prop_assert_eq!(whole.shape()[0], rows.iter().map(|rows| i64::from(*rows)).sum::<i64>());
                let again = split(&whole, &rows).expect("as many rows");
                prop_assert_eq!(&again, &parts);
                let range = whole.data().as_ptr_range();
                for part in again.iter().filter(|part| !part.data().is_empty()) {
                    prop_assert!(range.contains(&part.data().as_ptr()), "it shares the bytes of the whole");
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(join(&[]).is_err());
        assert!(join(&[&numbers(1, 2), &numbers(1, 3)]).is_err());
        assert!(join(&[&numbers(1, 2), &strings(1, 2)]).is_err());
        let scalar = Tensor::from_vec(Shape::default(), vec![1i32]).expect("fits");
        assert!(join(&[&scalar, &scalar]).is_err());
        assert!(split(&numbers(3, 2), &[1, 1]).is_none());
        assert!(split(&scalar, &[1]).is_none());
    }
}
