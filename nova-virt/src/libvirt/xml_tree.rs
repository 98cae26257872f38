//! libvirt's own XML as a tree, to change a definition that was not written here.

use quick_xml::events::{BytesEnd, BytesStart, BytesText, Event};
use quick_xml::{Reader, Writer, XmlVersion};

use crate::BoxError;

/// An element with everything in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Element {
    /// With its prefix.
    pub(super) name: String,
    pub(super) attributes: Vec<(String, String)>,
    pub(super) children: Vec<Child>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Child {
    Element(Element),
    Text(String),
}

impl Element {
    pub(super) fn new(name: &str, attributes: &[(&str, &str)]) -> Self {
        let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { name: name.to_owned(), attributes, children: Vec::new() }
    }

    pub(super) fn with(mut self, child: Element) -> Self {
        self.children.push(Child::Element(child));
        self
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        match self.attributes.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.attributes.push((name.to_owned(), value.to_owned())),
        }
    }

    /// The elements in it.
    pub(super) fn elements(&self) -> impl Iterator<Item = &Element> {
        self.children.iter().filter_map(|child| match child {
            Child::Element(element) => Some(element),
            Child::Text(_) => None,
        })
    }

    pub(super) fn elements_mut(&mut self) -> impl Iterator<Item = &mut Element> {
        self.children.iter_mut().filter_map(|child| match child {
            Child::Element(element) => Some(element),
            Child::Text(_) => None,
        })
    }

    /// The first element of that name in it.
    pub(super) fn child(&self, name: &str) -> Option<&Element> {
        self.elements().find(|element| element.name == name)
    }

    pub(super) fn child_mut(&mut self, name: &str) -> Option<&mut Element> {
        self.elements_mut().find(|element| element.name == name)
    }

    /// Takes each element of that name out of it, and gives back the first.
    pub(super) fn take(&mut self, name: &str) -> Option<Element> {
        let mut first = None;
        self.children.retain(|child| match child {
            Child::Element(element) if element.name == name => {
                first.get_or_insert_with(|| element.clone());
                false
            }
            Child::Element(_) | Child::Text(_) => true,
        });
        first
    }

    /// Its text, without the elements in it.
    pub(super) fn text(&self) -> String {
        let texts = self.children.iter().map(|child| match child {
            Child::Text(text) => text.as_str(),
            Child::Element(_) => "",
        });
        texts.collect()
    }

    /// Each attribute and text anywhere in it.
    pub(super) fn visit_values(&mut self, change: &mut impl FnMut(&mut String)) {
        self.attributes.iter_mut().for_each(|(_, value)| change(value));
        for child in &mut self.children {
            match child {
                Child::Text(text) => change(text),
                Child::Element(element) => element.visit_values(change),
            }
        }
    }

    /// As XML.
    pub(super) fn write(&self) -> Result<String, BoxError> {
        let mut writer = Writer::new(Vec::new());
        self.write_to(&mut writer)?;
        Ok(String::from_utf8(writer.into_inner())?)
    }

    fn write_to(&self, writer: &mut Writer<Vec<u8>>) -> Result<(), BoxError> {
        let mut start = BytesStart::new(self.name.as_str());
        for (name, value) in &self.attributes {
            start.push_attribute((name.as_str(), value.as_str()));
        }
        if self.children.is_empty() {
            writer.write_event(Event::Empty(start))?;
            return Ok(());
        }
        writer.write_event(Event::Start(start))?;
        for child in &self.children {
            match child {
                Child::Element(element) => element.write_to(writer)?,
                Child::Text(text) => writer.write_event(Event::Text(BytesText::new(text)))?,
            }
        }
        writer.write_event(Event::End(BytesEnd::new(self.name.as_str())))?;
        Ok(())
    }
}

/// Reads a document. Spaces between elements are left out.
pub(super) fn parse(xml: &str) -> Result<Element, BoxError> {
    let mut reader = Reader::from_str(xml);
    let mut open: Vec<Element> = vec![Element::default()];
    loop {
        match reader.read_event()? {
            Event::Start(start) => open.push(element(&start)?),
            Event::Empty(start) => {
                let element = element(&start)?;
                push(&mut open, Child::Element(element));
            }
            Event::End(_) => {
                let mut element = open.pop().ok_or("the XML ends an element that it did not begin")?;
                if element.elements().next().is_some() {
                    element.children.retain(|child| matches!(child, Child::Element(_)));
                }
                push(&mut open, Child::Element(element));
            }
            Event::Text(text) => add_text(&mut open, &text.xml10_content()),
            Event::CData(text) => add_text(&mut open, &text.xml10_content()),
            Event::GeneralRef(reference) => {
                let character = match reference.resolve_char_ref()? {
                    Some(character) => character.to_string(),
                    None => super::read_xml::predefined(&reference)?.to_owned(),
                };
                add_text(&mut open, &character);
            }
            Event::Eof => break,
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
    match open.as_slice() {
        [root] => root.elements().next().cloned().ok_or_else(|| "the XML has no element".into()),
        _ => Err("the XML ends too early".into()),
    }
}

fn element(start: &BytesStart<'_>) -> Result<Element, BoxError> {
    let name = start.name().as_ref().to_owned();
    let mut attributes = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute?;
        let name = attribute.key.as_ref().to_owned();
        attributes.push((name, attribute.normalized_value(XmlVersion::Explicit1_0)?.into_owned()));
    }
    Ok(Element { name, attributes, children: Vec::new() })
}

fn push(open: &mut [Element], child: Child) {
    if let Some(parent) = open.last_mut() {
        parent.children.push(child);
    }
}

fn add_text(open: &mut [Element], text: &str) {
    let Some(parent) = open.last_mut() else { return };
    match parent.children.last_mut() {
        Some(Child::Text(known)) => known.push_str(text),
        _ => parent.children.push(Child::Text(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_again() {
        let xml = "<domain type=\"qemu\"><name>a &lt;b&gt; &amp; \"c\"</name><m:x xmlns:m=\"urn:x\"><m:y>1</m:y></m:x>\
                   <devices><disk a=\"&quot;&lt;\"/></devices></domain>";
        let spaced = xml.replace("><", ">\n  <");
        let tree = parse(&spaced).unwrap();
        assert_eq!(parse(&tree.write().unwrap()).unwrap(), tree);
        assert_eq!(tree.child("name").unwrap().text(), "a <b> & \"c\"");
        assert_eq!(tree.child("devices").unwrap().child("disk").unwrap().attribute("a"), Some("\"<"));
    }

    #[test]
    fn half_a_document_is_none() {
        for xml in ["", "<a>", "<a><b></a>", "text", "</a>"] {
            assert!(parse(xml).is_err(), "{xml}");
        }
    }

    #[test]
    fn every_value_can_be_changed() {
        let mut tree = parse("<a p='/old/x'><b>/old/y</b><c q='other'/></a>").unwrap();
        tree.visit_values(&mut |value| *value = value.replace("/old/", "/new/"));
        assert_eq!(tree.write().unwrap(), "<a p=\"/new/x\"><b>/new/y</b><c q=\"other\"/></a>");
    }
}
