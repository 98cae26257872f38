//! The host's NUMA cells, from libvirt's capabilities.

use std::collections::BTreeSet;

use nova_core::topology::{HostCell, HugePages, parse_cpu_set};

use super::read_xml::{Node, attribute, strs, walk};
use crate::BoxError;

/// The size of usual pages in KiB, on every architecture that this driver runs guests of.
const SMALL_PAGE_KB: u64 = 4;

/// All cells; CPUs stand as shared, since only the operator knows which are not.
pub(super) fn cells(capabilities: &str) -> Result<Vec<HostCell>, BoxError> {
    let mut cells: Vec<HostCell> = Vec::new();
    let mut page_kb = None;
    let number = |text: &str| text.trim().parse::<u64>().ok();
    walk(capabilities, |path, node| {
        let path = strs(path);
        let ["capabilities", "host", "topology", "cells", "cell", rest @ ..] = &path[..] else { return };
        match (rest, node) {
            ([], Node::Start(start)) => {
                let id = attribute(start, "id").and_then(|id| id.parse().ok());
                cells.push(HostCell { id: id.unwrap_or(cells.len() as u32), ..HostCell::default() });
            }
            (["pages"], Node::Start(start)) => page_kb = attribute(start, "size").as_deref().and_then(number),
            (["pages"], Node::Text(text)) => {
                if let (Some(size_kb), Some(count), Some(cell)) = (page_kb, number(text), cells.last_mut()) {
                    add_pages(cell, size_kb, count);
                }
            }
            (["cpus", "cpu"], Node::Start(start)) => {
                if let (Some(cpu), Some(cell)) = (attribute(start, "id"), cells.last_mut()) {
                    add_cpu(cell, &cpu, attribute(start, "siblings").as_deref());
                }
            }
            _ => {}
        }
    })?;
    Ok(cells)
}

fn add_pages(cell: &mut HostCell, size_kb: u64, count: u64) {
    if size_kb <= SMALL_PAGE_KB {
        cell.memory_mb += size_kb.saturating_mul(count) / 1024;
    } else if count > 0 {
        cell.huge_pages.push(HugePages { size_kb, count });
    }
}

fn add_cpu(cell: &mut HostCell, cpu: &str, siblings: Option<&str>) {
    let Ok(cpu) = cpu.parse::<u32>() else { return };
    cell.shared_cpus.insert(cpu);
    let core: BTreeSet<u32> = siblings.and_then(|text| parse_cpu_set(text).ok()).unwrap_or_default();
    if core.len() > 1 && !cell.siblings.contains(&core) {
        cell.siblings.push(core);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_memory_pages_cpus_and_cores() {
        let xml = "<capabilities><host><topology><cells num='2'>\
            <cell id='0'><memory unit='KiB'>4194304</memory>\
              <pages unit='KiB' size='4'>524288</pages><pages unit='KiB' size='2048'>1000</pages>\
              <pages unit='KiB' size='1048576'>0</pages>\
              <cpus num='4'><cpu id='0' siblings='0,2'/><cpu id='1' siblings='1,3'/>\
              <cpu id='2' siblings='0,2'/><cpu id='3' siblings='1,3'/></cpus></cell>\
            <cell id='1'><pages unit='KiB' size='4'>256</pages><cpus num='1'><cpu id='8' siblings='8'/></cpus></cell>\
            </cells></topology></host><guest><cells><cell id='9'/></cells></guest></capabilities>";
        let first = HostCell {
            id: 0,
            shared_cpus: (0..4).collect(),
            dedicated_cpus: BTreeSet::new(),
            siblings: vec![[0, 2].into(), [1, 3].into()],
            memory_mb: 2048,
            huge_pages: vec![HugePages { size_kb: 2048, count: 1000 }],
        };
        let second = HostCell { id: 1, shared_cpus: [8].into(), memory_mb: 1, ..HostCell::default() };
        assert_eq!(cells(xml).unwrap(), [first, second]);
        assert_eq!(cells("<capabilities><host/></capabilities>").unwrap(), []);
    }
}
