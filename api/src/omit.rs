//! Go's `omitempty`: what is empty is left out.

/// For `skip_serializing_if`: the value is its type's zero.
pub(crate) fn empty<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
