//! `reshape` of a model's configuration: the shape clients use against the shape the model file has.

use crate::{Error, Result, Shape};

/// The shape that the backend sees for a tensor that a client sent with shape `actual`.
///
/// `dims` and `reshape` are the configuration's, without the batch dimension; `actual` has one where `batches`.
///
/// # Errors
/// InvalidArgument when the two cannot be matched: the -1 of `reshape` take the sizes that stood at the -1 of `dims`, in
/// order; a single -1 left over is computed from the element count.
pub fn to_model_shape(batches: bool, dims: &Shape, reshape: Option<&Shape>, actual: &Shape) -> Result<Shape> {
    convert(batches, dims, reshape, actual)
}

/// The shape that a client sees for an output that the backend returned with shape `actual`; the inverse of
/// [`to_model_shape`].
///
/// # Errors
/// As [`to_model_shape`].
pub fn to_request_shape(batches: bool, dims: &Shape, reshape: Option<&Shape>, actual: &Shape) -> Result<Shape> {
    let Some(reshape) = reshape else { return Ok(actual.clone()) };
    convert(batches, reshape, Some(dims), actual)
}

fn convert(batches: bool, from: &Shape, to: Option<&Shape>, actual: &Shape) -> Result<Shape> {
    let Some(to) = to else { return Ok(actual.clone()) };
    let inner = if batches { actual.without_batch() } else { actual.clone() };
    let mut variable = from.iter().zip(inner.iter()).filter(|(spec, _)| **spec == -1).map(|(_, size)| *size);
    let filled: Shape = to.iter().map(|dim| if *dim == -1 { variable.next().unwrap_or(-1) } else { *dim }).collect();
    let filled = infer_one(&filled, &inner);
    if filled.element_count().is_none() || filled.element_count() != inner.element_count() {
        return Err(Error::invalid_argument(format!("cannot reshape {inner} (declared as {from}) to {to}")));
    }
    Ok(if batches { filled.with_batch(actual.first().copied().unwrap_or(1)) } else { filled })
}

/// Replaces a single -1 by the size that makes the element counts equal, where there is one.
fn infer_one(shape: &Shape, same_count_as: &Shape) -> Shape {
    let known: i64 = shape.iter().filter(|dim| **dim != -1).product();
    let total = same_count_as.element_count().and_then(|count| i64::try_from(count).ok()).unwrap_or(-1);
    let one_open = shape.iter().filter(|dim| **dim == -1).count() == 1;
    if !one_open || known == 0 || total < 0 || total % known != 0 {
        return shape.clone();
    }
    shape.iter().map(|dim| if *dim == -1 { total / known } else { *dim }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reshapes_both_ways() {
        // (batches, dims, reshape, as the client has it, as the model has it)
        type Case<'a> = (bool, &'a [i64], &'a [i64], &'a [i64], &'a [i64]);
        let cases: [Case; 4] = [
            (true, &[1], &[], &[4, 1], &[4]),
            (true, &[-1, 4], &[-1, 2, 2], &[8, 5, 4], &[8, 5, 2, 2]),
            (false, &[2, 3], &[6], &[2, 3], &[6]),
            (false, &[-1], &[-1, 3], &[6], &[2, 3]),
        ];
        for (batches, dims, reshape, client, model) in cases {
            let (dims, reshape) = (Shape::new(dims), Shape::new(reshape));
            let to = to_model_shape(batches, &dims, Some(&reshape), &Shape::new(client));
            match &to {
                Ok(to) => assert_eq!(to, &Shape::new(model), "{dims} -> {reshape}"),
                // One size cannot fill a -1 that stands beside a fixed dimension.
                Err(_) => assert_eq!(client, [6], "{dims} -> {reshape}"),
            }
            let back = to_request_shape(batches, &dims, Some(&reshape), &Shape::new(model));
            if to.is_ok() {
                assert_eq!(back.expect("invertible"), Shape::new(client));
            }
        }
    }

    #[test]
    fn a_shape_that_cannot_be_matched_is_refused() {
        let error = to_model_shape(false, &Shape::from([6]), Some(&Shape::from([4])), &Shape::from([6]));
        assert!(error.expect_err("6 is not 4").message().contains("cannot reshape [6]"));
    }
}
