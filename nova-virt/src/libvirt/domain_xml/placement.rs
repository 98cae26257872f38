//! Where a guest's CPUs and memory are on the host, as libvirt wants it.

use std::collections::BTreeSet;
use std::io;

use nova_core::topology::{PlacedCell, Placement, format_cpu_set};

use super::hardware::Tuning;
use super::{W, empty, tuning};

/// Pins, memory nodes and huge pages, and the guest's share of the processors.
pub(super) fn tune(w: &mut W, placement: Option<&Placement>, shares: &Tuning) -> io::Result<()> {
    let Some(placement) = placement else { return tuning::numbers(w, "cputune", shares) };
    memory_backing(w, placement)?;
    cpu_tune(w, placement, shares)?;
    numa_tune(w, placement)
}

/// The cells that the guest sees, inside of `<cpu>`.
pub(super) fn cells(w: &mut W, placement: &Placement) -> io::Result<()> {
    w.create_element("numa").write_inner_content(|w| {
        for (id, cell) in placement.cells.iter().enumerate() {
            let (id, cpus) = (id.to_string(), format_cpu_set(&cell.cpus));
            let memory = cell.memory_mb.to_string();
            empty(w, "cell", &[("id", id.as_str()), ("cpus", &cpus), ("memory", &memory), ("unit", "MiB")])?;
        }
        Ok(())
    })?;
    Ok(())
}

fn memory_backing(w: &mut W, placement: &Placement) -> io::Result<()> {
    if placement.cells.iter().all(|cell| cell.page_kb.is_none()) {
        return Ok(());
    }
    w.create_element("memoryBacking").write_inner_content(|w| {
        w.create_element("hugepages").write_inner_content(|w| {
            for (id, cell) in placement.cells.iter().enumerate() {
                if let Some(size) = cell.page_kb {
                    let (size, id) = (size.to_string(), id.to_string());
                    empty(w, "page", &[("size", size.as_str()), ("unit", "KiB"), ("nodeset", &id)])?;
                }
            }
            Ok(())
        })?;
        Ok(())
    })?;
    Ok(())
}

fn cpu_tune(w: &mut W, placement: &Placement, shares: &Tuning) -> io::Result<()> {
    w.create_element("cputune").write_inner_content(|w| {
        tuning::each_number(w, shares)?;
        for cell in &placement.cells {
            for cpu in &cell.cpus {
                let pin = |host: &u32| BTreeSet::from([*host]);
                let set = cell.pins.get(cpu).map_or_else(|| cell.floats.clone(), pin);
                empty(w, "vcpupin", &[("vcpu", cpu.to_string().as_str()), ("cpuset", &format_cpu_set(&set))])?;
            }
        }
        // QEMU's other threads stay on the guest's CPUs, so that they disturb nobody else's.
        empty(w, "emulatorpin", &[("cpuset", &format_cpu_set(&all_cpus(placement)))])
    })?;
    Ok(())
}

fn all_cpus(placement: &Placement) -> BTreeSet<u32> {
    placement.cells.iter().flat_map(|cell| cell.pins.values().chain(&cell.floats).copied()).collect()
}

fn numa_tune(w: &mut W, placement: &Placement) -> io::Result<()> {
    let node = |cell: &PlacedCell| cell.host_cell;
    let nodes: BTreeSet<u32> = placement.cells.iter().map(node).collect();
    w.create_element("numatune").write_inner_content(|w| {
        empty(w, "memory", &[("mode", "strict"), ("nodeset", &format_cpu_set(&nodes))])?;
        for (id, cell) in placement.cells.iter().enumerate() {
            let (id, node) = (id.to_string(), cell.host_cell.to_string());
            empty(w, "memnode", &[("cellid", id.as_str()), ("mode", "strict"), ("nodeset", &node)])?;
        }
        Ok(())
    })?;
    Ok(())
}
