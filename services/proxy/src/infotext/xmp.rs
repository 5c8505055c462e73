//! XMP (ISO 16684-1): what of a picture's origin every format can hold, in words that others look for.
//!
//! `Iptc4xmpExt:DigitalSourceType` is where IPTC, C2PA and the search engines look for pictures that a model made (IPTC Photo
//! Metadata Standard 2023.2; newscodes `trainedAlgorithmicMedia`).

use std::fmt::Write as _;

use mobula_proto::inference::v1::TextChunk;

use super::SOFTWARE;

/// The keyword of XMP in a PNG; workers put it where the format has it.
pub(super) const KEYWORD: &str = "XML:com.adobe.xmp";
/// What a model made that was trained on others' works.
const SOURCE_TYPE: &str = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia";
/// How chunks of ours begin; behind it they are attributes of our namespace.
const OURS: &str = "mobula-";

/// Bytes of a packet without attributes, about; and of what is around an attribute's name and value.
const PACKET_BYTES: usize = 640;
const ATTRIBUTE_BYTES: usize = "\n   mobula:=\"\"".len();

/// A packet that says that a model made it, by which software, and with the parameters of `chunks` that are ours.
pub(super) fn packet(chunks: &[&TextChunk]) -> String {
    let ours = chunks
        .iter()
        .filter_map(|chunk| Some((chunk.keyword.strip_prefix(OURS)?, &*chunk.text)));
    let room = ours
        .clone()
        .map(|(name, text)| name.len() + text.len() + ATTRIBUTE_BYTES);
    let mut packet = String::with_capacity(PACKET_BYTES + room.sum::<usize>());
    // Writing to a String cannot fail.
    let _ = write!(
        packet,
        "<?xpacket begin=\"\u{feff}\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\n\
         <x:xmpmeta xmlns:x=\"adobe:ns:meta/\">\n \
         <rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">\n  \
         <rdf:Description rdf:about=\"\"\n   \
         xmlns:xmp=\"http://ns.adobe.com/xap/1.0/\"\n   \
         xmlns:Iptc4xmpExt=\"http://iptc.org/std/Iptc4xmpExt/2008-02-29/\"\n   \
         xmlns:mobula=\"urn:mobula:1\"\n   \
         xmp:CreatorTool=\"{SOFTWARE}\"\n   \
         Iptc4xmpExt:DigitalSourceType=\"{SOURCE_TYPE}\""
    );
    for (name, text) in ours {
        packet.push_str("\n   mobula:");
        push_camel(&mut packet, name);
        packet.push_str("=\"");
        push_escaped(&mut packet, text);
        packet.push('"');
    }
    packet.push_str("/>\n </rdf:RDF>\n</x:xmpmeta>\n<?xpacket end=\"r\"?>");
    packet
}

/// `guidance-scale` as `GuidanceScale`.
fn push_camel(out: &mut String, name: &str) {
    for word in name.split('-') {
        let mut letters = word.chars();
        out.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        out.push_str(letters.as_str());
    }
}

/// As an attribute of XML 1.0 can hold it; what no XML can hold becomes U+FFFD.
fn push_escaped(out: &mut String, text: &str) {
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' | '\r' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "&#{};", letter as u32);
            }
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infotext::chunk;

    #[test]
    fn parameters_are_attributes_that_xml_can_hold() {
        let chunks = [
            chunk("mobula-guidance-scale", "7.5".into()),
            chunk("mobula-model", "a<b> & \"c\"\n\u{1}".into()),
            chunk("Software", "not ours".into()),
        ];
        let packet = packet(&chunks.iter().collect::<Vec<_>>());
        assert!(packet.contains("mobula:GuidanceScale=\"7.5\""), "{packet}");
        assert!(
            packet.contains("mobula:Model=\"a&lt;b> &amp; &quot;c&quot;&#10;\u{fffd}\""),
            "{packet}"
        );
        assert!(!packet.contains("not ours"));
        assert!(packet.contains("digitalsourcetype/trainedAlgorithmicMedia\""));
    }
}
