//! The header `Server-Timing` of an answer that waited for a load. Pure.

/// What a load took, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LoadTiming {
    /// Until the last byte had arrived; unpacking runs meanwhile.
    pub download: f64,
    /// What was left of unpacking after that, verified, flushed and renamed.
    pub unpack: f64,
    /// Until every model was ready.
    pub load: f64,
}

impl LoadTiming {
    /// Reads `download;dur=1.5, unpack;dur=2.0, load;dur=3.0`.
    pub fn parse(header: &str) -> Option<Self> {
        let part = |name: &str| {
            let metric = header.split(',').map(str::trim).find(|metric| metric.split(';').next() == Some(name))?;
            metric.split_once("dur=")?.1.parse().ok()
        };
        Some(LoadTiming { download: part("download")?, unpack: part("unpack")?, load: part("load")? })
    }

    /// All parts together.
    pub fn total(&self) -> f64 {
        self.download + self.unpack + self.load
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_parts_of_a_load() {
        let timing = LoadTiming::parse("download;dur=1.500, unpack;dur=0.250, load;dur=30.000").expect("three parts");
        assert_eq!(timing, LoadTiming { download: 1.5, unpack: 0.25, load: 30.0 });
        assert_eq!(timing.total(), 31.75);
        assert_eq!(LoadTiming::parse("download;dur=1.500"), None);
    }
}
