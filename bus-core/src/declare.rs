//! What an end says of itself when it is opened: its type, by the codec and a short name.

use crate::codec::Codec;
use crate::limits::TYPE_NAME_MAX_BYTES;
use crate::wire::TypeDeclaration;

/// What an end declares of its type. Raw ends declare nothing.
pub(crate) fn declaration(codec: Codec, type_name: Option<&str>) -> Option<TypeDeclaration> {
    type_name.map(|name| TypeDeclaration { codec, type_name: name.to_owned() })
}

/// The last segment of a type's path, generics included: `Job` for `producer::Job`.
pub(crate) fn short_type_name<T>() -> String {
    let full = std::any::type_name::<T>();
    let (path, generics) = full.find('<').map_or((full, ""), |at| full.split_at(at));
    let last = path.rsplit("::").next().unwrap_or(path);
    cut(format!("{last}{generics}"), TYPE_NAME_MAX_BYTES)
}

pub(crate) fn cut(mut text: String, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
