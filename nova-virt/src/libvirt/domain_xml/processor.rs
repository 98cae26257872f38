//! What a guest's processors look like to it, and how many queues its interfaces have.

use std::io;

use nova_core::topology::{CpuLayout, layout};
use quick_xml::events::BytesText;

use super::hardware::Asked;
use super::{Shape, W, empty, placement};
use crate::libvirt::LibvirtOptions;
use crate::{GuestSpec, HypervisorError};

type Result<T> = std::result::Result<T, HypervisorError>;

/// The kernel gives a tap no more (drivers/net/tun.c, `MAX_TAP_QUEUES`).
const MOST_QUEUES: u32 = 256;

/// What flavor and image may ask of processors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::libvirt) struct Processor {
    /// Sockets, cores, threads; `None`: a socket for each.
    pub(super) layout: Option<CpuLayout>,
    /// Counters of performance; `None`: as the machine does.
    pub(super) counters: Option<bool>,
    /// The guest is not to see what runs it.
    pub(super) hidden: bool,
}

impl Asked<'_> {
    pub(super) fn processor(&self, vcpus: u32) -> Result<Processor> {
        let layout = layout(&self.0.extra_specs, &self.0.image_properties, vcpus);
        let mut hidden = self.image_flag("img_hide_hypervisor_id")?.unwrap_or(false);
        for name in ["hw:hide_hypervisor_id", "hide_hypervisor_id"] {
            hidden |= self.flavor_flag(name)?.unwrap_or(false);
        }
        Ok(Processor {
            layout: layout.map_err(|e| HypervisorError::invalid("hw:cpu_sockets", e.to_string()))?,
            counters: self.switch("pmu")?,
            hidden,
        })
    }

    pub(super) fn queues(&self, vcpus: u32) -> Result<Option<u32>> {
        let asked = self.switch("vif_multiqueue_enabled")?.unwrap_or(false);
        Ok(asked.then_some(vcpus.min(MOST_QUEUES)).filter(|queues| *queues > 1))
    }

    /// What the flavor says, or else the image.
    fn switch(&self, name: &str) -> Result<Option<bool>> {
        let image = self.image_flag(&format!("hw_{name}"))?;
        Ok(self.flavor_flag(&format!("hw:{name}"))?.or(image))
    }
}

/// Of a domain's `features`.
pub(super) fn features(w: &mut W, shape: &Shape) -> io::Result<()> {
    if shape.processor.hidden {
        w.create_element("kvm").write_inner_content(|w| empty(w, "hidden", &[("state", "on")]))?;
    }
    match shape.processor.counters {
        Some(counters) => empty(w, "pmu", &[("state", if counters { "on" } else { "off" })]),
        None => Ok(()),
    }
}

/// The element `cpu`.
pub(super) fn write(w: &mut W, guest: &GuestSpec, shape: &Shape, options: &LibvirtOptions) -> io::Result<()> {
    let custom = options.cpu_mode == "custom";
    let inside = |w: &mut W| {
        if let Some(layout) = shape.processor.layout {
            let [sockets, cores, threads] = [layout.sockets, layout.cores, layout.threads].map(|n| n.to_string());
            let attributes = [("sockets", sockets.as_str()), ("cores", &cores), ("threads", &threads)];
            empty(w, "topology", &attributes)?;
        }
        guest.placement.as_ref().map_or(Ok(()), |placement| placement::cells(w, placement))
    };
    let cpu = w.create_element("cpu").with_attribute(("mode", options.cpu_mode.as_str()));
    if custom {
        cpu.with_attribute(("match", "exact")).write_inner_content(|w| {
            w.create_element("model")
                .with_attribute(("fallback", "forbid"))
                .write_text_content(BytesText::new(&options.cpu_model))?;
            inside(w)
        })?;
    } else if guest.placement.is_some() || shape.processor.layout.is_some() {
        cpu.write_inner_content(inside)?;
    } else {
        cpu.write_empty()?;
    }
    Ok(())
}
