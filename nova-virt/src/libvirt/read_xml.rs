//! What we read of libvirt's XML.

use quick_xml::Reader;
use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use serde_json::{Value, json};

use crate::BoxError;

/// What our element of a domain's metadata says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct GuestMetadata {
    pub(super) epoch: u64,
    pub(super) display_name: String,
    /// Whose password is set when nobody is named.
    pub(super) administrator: Option<String>,
}

/// Reads the metadata element that `virDomainGetMetadata` gives back, whatever its prefix has become.
pub(super) fn metadata(xml: &str) -> Result<GuestMetadata, BoxError> {
    let mut found = GuestMetadata::default();
    let mut epoch = None;
    walk(xml, |path, node| {
        if let Node::Text(text) = node {
            match path {
                [.., element] if element == "epoch" => epoch = text.trim().parse().ok(),
                [.., element] if element == "administrator" => found.administrator = Some(text.to_owned()),
                [.., element] if element == "name" => found.display_name = text.to_owned(),
                _ => {}
            }
        }
    })?;
    found.epoch = epoch.ok_or("the guest's metadata has no epoch")?;
    Ok(found)
}

/// Where the screen of a running domain listens: address and port.
pub(super) fn vnc(domain_xml: &str) -> Result<Option<(String, u16)>, BoxError> {
    let mut found = None;
    walk(domain_xml, |path, node| {
        if let (["domain", "devices", "graphics"], Node::Start(start)) = (&strs(path)[..], node)
            && attribute(start, "type").as_deref() == Some("vnc")
            && let Some(port) = attribute(start, "port").and_then(|port| port.parse().ok())
        {
            let listen = attribute(start, "listen").unwrap_or_else(|| "127.0.0.1".into());
            found = Some((listen, port));
        }
    })?;
    Ok(found)
}

/// Where the screen of a running domain is served over SPICE: address, port, port for TLS. Outer `None`: it has no such screen;
/// no port: it is not served now.
pub(super) fn spice(domain_xml: &str) -> Result<Option<SpicePorts>, BoxError> {
    let mut found = None;
    walk(domain_xml, |path, node| {
        if let (["domain", "devices", "graphics"], Node::Start(start)) = (&strs(path)[..], node)
            && attribute(start, "type").as_deref() == Some("spice")
        {
            let port = |name| attribute(start, name).and_then(|port| port.parse().ok()).filter(|port| *port > 0);
            let host = attribute(start, "listen").unwrap_or_else(|| "127.0.0.1".into());
            found = Some(SpicePorts { host, port: port("port"), tls_port: port("tlsPort") });
        }
    })?;
    Ok(found)
}

/// What a definition says of a screen over SPICE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SpicePorts {
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) tls_port: Option<u16>,
}

/// Hardware addresses of a domain's interfaces, lower case, in order.
pub(super) fn interfaces(domain_xml: &str) -> Result<Vec<String>, BoxError> {
    let mut found = Vec::new();
    walk(domain_xml, |path, node| {
        if let (["domain", "devices", "interface", "mac"], Node::Start(start)) = (&strs(path)[..], node) {
            found.extend(attribute(start, "address").map(|mac| mac.to_ascii_lowercase()));
        }
    })?;
    Ok(found)
}

/// The host's processor in the shape of Nova's `cpu_info`, from libvirt's capabilities.
pub(super) fn cpu_info(capabilities: &str) -> Result<Value, BoxError> {
    let (mut arch, mut model, mut vendor) = (Value::Null, Value::Null, Value::Null);
    let mut topology = json!({});
    let mut features = Vec::new();
    walk(capabilities, |path, node| match (&strs(path)[..], node) {
        (["capabilities", "host", "cpu", "arch"], Node::Text(text)) => arch = json!(text.trim()),
        (["capabilities", "host", "cpu", "model"], Node::Text(text)) => model = json!(text.trim()),
        (["capabilities", "host", "cpu", "vendor"], Node::Text(text)) => vendor = json!(text.trim()),
        (["capabilities", "host", "cpu", "feature"], Node::Start(start)) => {
            features.extend(attribute(start, "name"));
        }
        (["capabilities", "host", "cpu", "topology"], Node::Start(start)) => {
            for name in ["sockets", "dies", "cores", "threads"] {
                if let Some(count) = attribute(start, name).and_then(|count| count.parse::<u32>().ok()) {
                    topology[name] = json!(count);
                }
            }
        }
        _ => {}
    })?;
    features.sort();
    Ok(json!({
        "arch": arch, "model": model, "vendor": vendor, "topology": topology, "features": features,
    }))
}

/// The features of a `<cpu>`, as `virConnectBaselineCPU` writes it.
pub(super) fn cpu_features(cpu: &str) -> Result<Vec<String>, BoxError> {
    let mut features = Vec::new();
    walk(cpu, |path, node| {
        if let (["cpu", "feature"], Node::Start(start)) = (&strs(path)[..], node)
            && attribute(start, "policy").is_none_or(|policy| policy == "require" || policy == "force")
        {
            features.extend(attribute(start, "name"));
        }
    })?;
    Ok(features)
}

pub(super) enum Node<'a> {
    /// An element begins; it is the last of the path.
    Start(&'a BytesStart<'a>),
    /// The whole text of the element that is the last of the path.
    Text(&'a str),
}

/// Calls `visit` for each element and each element's text. Names are without prefix.
pub(super) fn walk(xml: &str, mut visit: impl FnMut(&[String], Node<'_>)) -> Result<(), BoxError> {
    let mut reader = Reader::from_str(xml);
    let mut path: Vec<String> = Vec::new();
    let mut texts: Vec<String> = Vec::new();
    loop {
        match reader.read_event()? {
            Event::Start(start) => {
                path.push(local(&start));
                texts.push(String::new());
                visit(&path, Node::Start(&start));
            }
            Event::Empty(start) => {
                path.push(local(&start));
                visit(&path, Node::Start(&start));
                visit(&path, Node::Text(""));
                path.pop();
            }
            Event::Text(text) => add(&mut texts, &text.xml10_content()),
            Event::CData(text) => add(&mut texts, &text.xml10_content()),
            Event::GeneralRef(reference) => {
                let character = match reference.resolve_char_ref()? {
                    Some(character) => character.to_string(),
                    None => predefined(&reference)?.to_owned(),
                };
                add(&mut texts, &character);
            }
            Event::End(_) => {
                let text = texts.pop().unwrap_or_default();
                visit(&path, Node::Text(&text));
                path.pop();
            }
            Event::Eof if path.is_empty() => return Ok(()),
            Event::Eof => return Err("the XML ends too early".into()),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
}

fn add(texts: &mut [String], text: &str) {
    if let Some(last) = texts.last_mut() {
        last.push_str(text);
    }
}

pub(super) fn predefined(name: &str) -> Result<&'static str, BoxError> {
    match name {
        "lt" => Ok("<"),
        "gt" => Ok(">"),
        "amp" => Ok("&"),
        "quot" => Ok("\""),
        "apos" => Ok("'"),
        _ => Err("the XML has an entity of its own".into()),
    }
}

fn local(start: &BytesStart<'_>) -> String {
    start.local_name().as_ref().to_owned()
}

pub(super) fn attribute(start: &BytesStart<'_>, name: &str) -> Option<String> {
    let attribute = start.try_get_attribute(name).ok().flatten()?;
    attribute.normalized_value(XmlVersion::Explicit1_0).ok().map(|value| value.into_owned())
}

pub(super) fn strs(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read_under_any_prefix() {
        let xml = "<instance xmlns='urn:x'><epoch> 7\n</epoch><name>a &lt;b&gt; &#233;</name></instance>";
        let expected = GuestMetadata { epoch: 7, display_name: "a <b> é".into(), administrator: None };
        assert_eq!(metadata(xml).unwrap(), expected);
        let prefixed = "<n:instance xmlns:n='urn:x'><n:epoch>7</n:epoch><n:name/></n:instance>";
        assert_eq!(metadata(prefixed).unwrap(), GuestMetadata { epoch: 7, ..Default::default() });
    }

    #[test]
    fn metadata_without_an_epoch_is_no_metadata() {
        for xml in ["<instance/>", "<instance><epoch>x</epoch></instance>", "<instance><epoch>1", ""] {
            assert!(metadata(xml).is_err(), "{xml}");
        }
    }

    #[test]
    fn the_screen_is_found_among_the_devices() {
        let xml = "<domain><devices><graphics type='spice' port='1'/>\
                   <graphics type='vnc' port='5901' listen='10.0.0.1'><listen type='address'/></graphics>\
                   </devices></domain>";
        assert_eq!(vnc(xml).unwrap(), Some(("10.0.0.1".into(), 5901)));
        let off = "<domain><devices><graphics type='vnc' port='-1'/></devices></domain>";
        assert_eq!(vnc(off).unwrap(), None);
        assert_eq!(spice(off).unwrap(), None);
        let ports = |port, tls_port| Some(SpicePorts { host: "10.0.0.1".into(), port, tls_port });
        for (attributes, expected) in [
            ("port='5902' tlsPort='5903'", ports(Some(5902), Some(5903))),
            ("tlsPort='5903' defaultMode='secure'", ports(None, Some(5903))),
            ("port='5902' tlsPort='-1'", ports(Some(5902), None)),
            ("port='-1' autoport='yes'", ports(None, None)),
        ] {
            let xml =
                format!("<domain><devices><graphics type='spice' {attributes} listen='10.0.0.1'/></devices></domain>");
            assert_eq!(spice(&xml).unwrap(), expected, "{attributes}");
        }
    }

    #[test]
    fn interfaces_are_read_in_order() {
        let xml = "<domain><devices><interface type='bridge'><mac address='FA:16:3E:00:00:02'/></interface>\
                   <disk><mac address='x'/></disk>\
                   <interface type='ethernet'><mac address='fa:16:3e:00:00:01'/><target dev='t'/></interface>\
                   </devices></domain>";
        assert_eq!(interfaces(xml).unwrap(), ["fa:16:3e:00:00:02", "fa:16:3e:00:00:01"]);
        assert!(interfaces("<domain/>").unwrap().is_empty());
    }

    #[test]
    fn features_that_are_switched_off_are_none() {
        let xml = "<cpu><model>x</model><feature policy='require' name='aes'/><feature name='sse'/>\
                   <feature policy='disable' name='avx'/></cpu>";
        assert_eq!(cpu_features(xml).unwrap(), ["aes", "sse"]);
    }

    #[test]
    fn the_processor_has_novas_shape() {
        let xml = "<capabilities><host><cpu><arch>x86_64</arch><model>EPYC</model><vendor>AMD</vendor>\
                   <topology sockets='1' dies='1' cores='2' threads='1'/><feature name='vmx'/><feature name='aes'/>\
                   </cpu></host><guest><arch name='i686'/></guest></capabilities>";
        let expected = json!({
            "arch": "x86_64", "model": "EPYC", "vendor": "AMD",
            "topology": { "sockets": 1, "dies": 1, "cores": 2, "threads": 1 },
            "features": ["aes", "vmx"],
        });
        assert_eq!(cpu_info(xml).unwrap(), expected);
    }
}
