//! Limits, firmware, screen, watchdog and random numbers, as libvirt wants them.

use std::io;

use quick_xml::events::BytesText;

use super::hardware::{Shape, Tuning};
use super::{GuestFiles, W, empty, path_text, text};

/// An element of numbers; none if there are none.
pub(super) fn numbers(w: &mut W, name: &str, tuning: &Tuning) -> io::Result<()> {
    if tuning.is_empty() {
        return Ok(());
    }
    w.create_element(name).write_inner_content(|w| each_number(w, tuning))?;
    Ok(())
}

pub(super) fn each_number(w: &mut W, tuning: &Tuning) -> io::Result<()> {
    tuning.iter().try_for_each(|(name, number)| text(w, name, &number.to_string()))
}

/// Of an interface: in its host's words, what comes in is what the guest sends; libvirt speaks of the guest's side.
pub(super) fn bandwidth(w: &mut W, shape: &Shape) -> io::Result<()> {
    if shape.inbound.is_empty() && shape.outbound.is_empty() {
        return Ok(());
    }
    w.create_element("bandwidth").write_inner_content(|w| {
        for (way, tuning) in [("inbound", &shape.inbound), ("outbound", &shape.outbound)] {
            if !tuning.is_empty() {
                let numbers: Vec<_> = tuning.iter().map(|(name, n)| (name.as_str(), n.to_string())).collect();
                let attributes: Vec<_> = numbers.iter().map(|(name, n)| (*name, n.as_str())).collect();
                empty(w, way, &attributes)?;
            }
        }
        Ok(())
    })?;
    Ok(())
}

pub(super) fn firmware(w: &mut W, shape: &Shape, files: &GuestFiles) -> io::Result<()> {
    let Some(firmware) = &shape.firmware else { return Ok(()) };
    let loader = w.create_element("loader").with_attributes([("readonly", "yes"), ("type", "pflash")]);
    let loader = if firmware.secure { loader.with_attribute(("secure", "yes")) } else { loader };
    loader.write_text_content(BytesText::new(path_text(&firmware.code)?))?;
    w.create_element("nvram")
        .with_attribute(("template", path_text(&firmware.variables)?))
        .write_text_content(BytesText::new(path_text(&files.nvram)?))?;
    Ok(())
}

pub(super) fn screen(w: &mut W, shape: &Shape) -> io::Result<()> {
    let memory = shape.video_kib.map(|kib| kib.to_string());
    let mut model = vec![("type", shape.video.as_str())];
    model.extend(memory.as_deref().map(|kib| ("vram", kib)));
    w.create_element("video").write_inner_content(|w| empty(w, "model", &model))?;
    Ok(())
}

pub(super) fn watchdog_and_rng(w: &mut W, shape: &Shape) -> io::Result<()> {
    if let Some(action) = &shape.watchdog {
        empty(w, "watchdog", &[("model", "i6300esb"), ("action", action.as_str())])?;
    }
    if !shape.rng {
        return Ok(());
    }
    w.create_element("rng").with_attribute(("model", "virtio")).write_inner_content(|w| {
        if let Some((bytes, period)) = shape.rng_rate {
            empty(w, "rate", &[("bytes", bytes.to_string().as_str()), ("period", &period.to_string())])?;
        }
        w.create_element("backend")
            .with_attribute(("model", "random"))
            .write_text_content(BytesText::new("/dev/urandom"))?;
        Ok(())
    })?;
    Ok(())
}
