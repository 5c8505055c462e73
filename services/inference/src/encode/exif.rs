//! The Exif that JPEG and WebP carry (CIPA DC-008, TIFF 6.0): the infotext as UserComment, as AUTOMATIC1111 writes it, and the
//! software's name.
//!
//! Big-endian throughout, because readers take the UTF-16 of a UserComment in the order of the file or as big-endian.

/// Fields of the main directory and of Exif's own.
const SOFTWARE: u16 = 0x0131;
const EXIF_DIRECTORY: u16 = 0x8769;
const USER_COMMENT: u16 = 0x9286;
/// Types of fields.
const ASCII: u16 = 2;
const LONG: u16 = 4;
const UNDEFINED: u16 = 7;
/// Bytes of the header, of a field, and of a directory's count and link.
const HEADER: usize = 8;
const FIELD: usize = 12;
const AROUND: usize = 6;
/// How a UserComment says that it is UTF-16.
const UNICODE: &[u8; 8] = b"UNICODE\0";

/// The bytes behind `Exif\0\0`; none where there is nothing to say.
pub(super) fn block(software: Option<&str>, comment: Option<&str>) -> Option<Vec<u8>> {
    let software = software.map(|name| [name.as_bytes(), &[0]].concat());
    let comment = comment.map(|text| {
        let units = text.encode_utf16().flat_map(u16::to_be_bytes);
        UNICODE.iter().copied().chain(units).collect::<Vec<u8>>()
    });
    let fields = usize::from(software.is_some()) + usize::from(comment.is_some());
    if fields == 0 {
        return None;
    }
    let mut main = Directory::at(HEADER, fields);
    if let Some(software) = &software {
        main.value(SOFTWARE, ASCII, software);
    }
    if let Some(comment) = &comment {
        let at = main.end();
        main.number(EXIF_DIRECTORY, at);
        let mut own = Directory::at(at, 1);
        own.value(USER_COMMENT, UNDEFINED, comment);
        main.values.extend(own.bytes());
    }
    let mut bytes = b"MM\0\x2a".to_vec();
    bytes.extend((HEADER as u32).to_be_bytes());
    bytes.extend(main.bytes());
    Some(bytes)
}

/// A directory of fields, and behind it the values that are longer than four bytes.
struct Directory {
    start: usize,
    count: usize,
    fields: Vec<u8>,
    values: Vec<u8>,
}

impl Directory {
    fn at(start: usize, count: usize) -> Self {
        Self {
            start,
            count,
            fields: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Where the next long value goes.
    fn end(&self) -> usize {
        self.start + AROUND + FIELD * self.count + self.values.len()
    }

    fn head(&mut self, tag: u16, kind: u16, count: usize) {
        self.fields.extend(tag.to_be_bytes());
        self.fields.extend(kind.to_be_bytes());
        self.fields.extend((count as u32).to_be_bytes());
    }

    fn value(&mut self, tag: u16, kind: u16, value: &[u8]) {
        let at = self.end();
        self.head(tag, kind, value.len());
        if value.len() <= 4 {
            let mut short = [0; 4];
            short[..value.len()].copy_from_slice(value);
            self.fields.extend(short);
            return;
        }
        self.fields.extend((at as u32).to_be_bytes());
        self.values.extend(value);
        // Values begin at even places.
        if !self.values.len().is_multiple_of(2) {
            self.values.push(0);
        }
    }

    fn number(&mut self, tag: u16, number: usize) {
        self.head(tag, LONG, 1);
        self.fields.extend((number as u32).to_be_bytes());
    }

    fn bytes(self) -> Vec<u8> {
        let mut bytes = (self.count as u16).to_be_bytes().to_vec();
        bytes.extend(self.fields);
        // No further directory.
        bytes.extend([0; 4]);
        bytes.extend(self.values);
        bytes
    }
}
