//! Where the weights of a loaded model are.

/// Whether a model has its weights in memory of its own or leaves them in their file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// In memory of its own, in the layout that its kernels run fastest with.
    #[default]
    Private,
    /// In the file, mapped: the model costs little memory, the page cache holds what it uses, and runs may be slower.
    Mapped,
    /// In the file at first, and in memory of its own while the model is used so much that it is worth that.
    Auto,
}

impl Weights {
    /// Every choice, by name.
    pub const ALL: [Weights; 3] = [Weights::Private, Weights::Mapped, Weights::Auto];

    /// What configurations call it.
    pub const fn name(self) -> &'static str {
        match self {
            Weights::Private => "private",
            Weights::Mapped => "mapped",
            Weights::Auto => "auto",
        }
    }

    /// The choice of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|weights| weights.name() == name)
    }
}
