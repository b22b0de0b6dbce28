//! A tensor's shape: its dimensions, outermost first.

use std::fmt;
use std::ops::Deref;

use smallvec::SmallVec;

/// Dimensions, outermost first. In a model's specification -1 means "any size"; in a tensor every dimension is ≥ 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shape(SmallVec<[i64; 6]>);

impl Shape {
    /// A shape from its dimensions.
    pub fn new(dims: &[i64]) -> Self {
        Shape(SmallVec::from_slice(dims))
    }

    /// This shape with one more outermost dimension.
    pub fn with_batch(&self, batch: i64) -> Self {
        std::iter::once(batch).chain(self.0.iter().copied()).collect()
    }

    /// This shape without its outermost dimension (a scalar stays a scalar).
    pub fn without_batch(&self) -> Self {
        self.0.iter().skip(1).copied().collect()
    }

    /// How many elements a tensor of this shape has (1 for a scalar); `None` when a dimension is negative or the product
    /// does not fit in `usize`.
    pub fn element_count(&self) -> Option<usize> {
        let mut count = 1usize;
        let mut overflow = false;
        for dim in &self.0 {
            let dim = usize::try_from(*dim).ok()?;
            if dim == 0 {
                return if self.0.iter().all(|dim| *dim >= 0) { Some(0) } else { None };
            }
            match count.checked_mul(dim) {
                Some(product) => count = product,
                None => overflow = true,
            }
        }
        (!overflow).then_some(count)
    }

    /// Whether a tensor of shape `actual` may stand where this shape is specified: same rank, and equal wherever this
    /// shape is not -1.
    pub fn admits(&self, actual: &Shape) -> bool {
        self.len() == actual.len() && self.iter().zip(actual.iter()).all(|(want, got)| *want == -1 || want == got)
    }

    /// Whether some tensor could satisfy both specifications: same rank, and no two different fixed dimensions.
    pub fn is_compatible_with(&self, other: &Shape) -> bool {
        self.len() == other.len() && self.iter().zip(other.iter()).all(|(a, b)| *a == -1 || *b == -1 || a == b)
    }
}

impl Deref for Shape {
    type Target = [i64];

    fn deref(&self) -> &[i64] {
        &self.0
    }
}

impl FromIterator<i64> for Shape {
    fn from_iter<I: IntoIterator<Item = i64>>(dims: I) -> Self {
        Shape(dims.into_iter().collect())
    }
}

impl<const N: usize> From<[i64; N]> for Shape {
    fn from(dims: [i64; N]) -> Self {
        Shape::new(&dims)
    }
}

impl From<Vec<i64>> for Shape {
    fn from(dims: Vec<i64>) -> Self {
        Shape(SmallVec::from_vec(dims))
    }
}

/// As Triton writes shapes in messages: `[2,-1,3]`.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (position, dim) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{dim}")?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_elements() {
        let cases: [(&[i64], Option<usize>); 7] = [
            (&[], Some(1)),
            (&[2, 3], Some(6)),
            (&[2, 0, 9], Some(0)),
            (&[-1], None),
            (&[0, -1], None),
            (&[i64::MAX, i64::MAX], None),
            (&[i64::MAX, 4, 0], Some(0)),
        ];
        for (dims, expected) in cases {
            assert_eq!(Shape::new(dims).element_count(), expected, "{dims:?}");
        }
    }

    #[test]
    fn admits_only_what_fits() {
        let spec = Shape::from([-1, 3]);
        assert!(spec.admits(&Shape::from([7, 3])));
        assert!(!spec.admits(&Shape::from([7, 4])));
        assert!(!spec.admits(&Shape::from([3])));
        assert!(spec.is_compatible_with(&Shape::from([5, -1])));
        assert!(!spec.is_compatible_with(&Shape::from([5, 4])));
    }
}
