//! Guests with NUMA cells, CPUs of their own and huge pages, from the API to the hypervisor.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nova_core::flavor::Flavor;
use nova_core::host::Allocation;
use nova_core::ids::{HostName, InstanceId};
use nova_core::state::{Action, VmState};
use nova_core::topology::Placement;
use nova_virt::{ErrorKind, Operation};

use crate::check;
use crate::support::{Cloud, CloudOptions};

/// Two cells of 8 CPUs: 0-3 and 8-11 are for sharing, the others for guests of their own; half a GiB of each in huge pages.
fn two_cells() -> CloudOptions {
    CloudOptions {
        hosts: 2,
        vcpus: 16,
        memory_mb: 16 << 10,
        dress: |_, machine, settings| {
            machine.spread_over(2, 512);
            settings.cpu_shared_set = Some((0..4).chain(8..12).collect());
            settings.cpu_dedicated_set = Some((4..8).chain(12..16).collect());
        },
        ..CloudOptions::default()
    }
}

fn flavor(cloud: &Cloud, vcpus: u32, memory_mb: u64, specs: &[(&str, &str)]) -> Flavor {
    let specs = specs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Flavor { extra_specs: specs.collect(), ..cloud.flavor(vcpus, memory_mb) }
}

async fn boot(cloud: &Cloud, count: u32, flavor: &Flavor) -> Vec<InstanceId> {
    let made = cloud.boot(count, flavor.clone()).await.unwrap();
    cloud.settle().await;
    made
}

async fn states(cloud: &Cloud, ids: &[InstanceId]) -> BTreeMap<VmState, usize> {
    let mut states = BTreeMap::new();
    for id in ids {
        *states.entry(cloud.get(*id).await.vm_state).or_default() += 1;
    }
    states
}

async fn placements(cloud: &Cloud) -> BTreeMap<InstanceId, (HostName, Placement)> {
    let held = cloud.store.list_allocations(None).await.unwrap();
    let placed = |a: Allocation| Some((a.instance_id, (a.host, a.placement?)));
    held.into_iter().filter_map(placed).collect()
}

/// What the books say, no CPU is anybody's twice, the guests are made as booked, and the invariants hold.
async fn verify(cloud: &Cloud) {
    cloud.check().await;
    assert_eq!(cloud.world.cpu_violations(), []);
    let mut own: BTreeSet<(HostName, u32)> = BTreeSet::new();
    for (id, (host, placement)) in placements(cloud).await {
        for cpu in placement.own_cpus() {
            assert!(own.insert((host.clone(), cpu)), "CPU {cpu} of {host} twice");
        }
        let made = cloud.hosts[&host].spec_of(id).unwrap();
        assert_eq!(made.placement.as_ref(), Some(&placement), "{id}");
    }
    assert_eq!(check::violations(cloud).await, []);
}

#[tokio::test(start_paused = true)]
async fn dedicated_guests_fill_cells_and_the_next_is_refused() {
    for scheduler in ["random", "availability_zone", "least_load", "filter"] {
        let cloud = Cloud::start(CloudOptions { scheduler, ..two_cells() }).await;
        let own = flavor(&cloud, 2, 256, &[("hw:cpu_policy", "dedicated")]);
        // Two hosts, two cells each, two guests in each; the first four at once.
        let mut made = boot(&cloud, 4, &own).await;
        for _ in 0..4 {
            made.extend(boot(&cloud, 1, &own).await);
        }
        assert_eq!(states(&cloud, &made).await, BTreeMap::from([(VmState::Active, 8)]), "{scheduler}");
        verify(&cloud).await;
        let dedicated: BTreeSet<u32> = (4..8).chain(12..16).collect();
        let all: Vec<u32> =
            placements(&cloud).await.values().flat_map(|(_, p)| p.own_cpus().collect::<Vec<_>>()).collect();
        assert_eq!((all.len(), all.into_iter().collect::<BTreeSet<_>>()), (16, dedicated));

        let late = boot(&cloud, 1, &own).await[0];
        let refused = cloud.get(late).await;
        assert_eq!(refused.vm_state, VmState::Error);
        let fault = refused.fault.unwrap();
        assert!(fault.details.contains("2 have not enough dedicated CPUs left"), "{scheduler}: {}", fault.details);

        // Shared CPUs are another account: 8 of them, four times each.
        let shared = flavor(&cloud, 8, 300, &[]);
        let floating = boot(&cloud, 2, &shared).await;
        assert_eq!(states(&cloud, &floating).await, BTreeMap::from([(VmState::Active, 2)]), "{scheduler}");
        let node = cloud.store.node_of_host(&HostName::new("host00")).await.unwrap();
        assert_eq!(node.inventory.total.vcpus, 8);

        assert!(cloud.act(made[3], Action::Delete).await);
        cloud.settle().await;
        let again = boot(&cloud, 1, &own).await;
        assert_eq!(states(&cloud, &again).await, BTreeMap::from([(VmState::Active, 1)]), "{scheduler}");
        verify(&cloud).await;
        cloud.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn cells_and_pages_are_where_they_were_asked_for() {
    let cloud = Cloud::start(two_cells()).await;
    let wide = [("hw:numa_nodes", "2"), ("hw:mem_page_size", "large")];
    let wide = boot(&cloud, 1, &flavor(&cloud, 4, 512, &wide)).await[0];
    let (_, placed) = placements(&cloud).await.remove(&wide).unwrap();
    let cells: Vec<_> = placed.cells.iter().map(|cell| (cell.host_cell, cell.memory_mb, cell.page_kb)).collect();
    assert_eq!(cells, [(0, 256, Some(2048)), (1, 256, Some(2048))]);
    assert_eq!(placed.cells[1].floats, (8..12).collect());
    assert_eq!(cloud.store.list_allocations(None).await.unwrap()[0].resources.vcpus, 4, "they are shared ones");
    verify(&cloud).await;
    // 256 MiB of pages are left in each of the first host's cells, 512 in each of the other's.
    let half = flavor(&cloud, 1, 400, &[("hw:mem_page_size", "2048")]);
    let more = boot(&cloud, 3, &half).await;
    assert_eq!(states(&cloud, &more).await, BTreeMap::from([(VmState::Error, 3)]), "all or none");
    let more = boot(&cloud, 2, &half).await;
    assert_eq!(states(&cloud, &more).await, BTreeMap::from([(VmState::Active, 2)]));
    let isolated = [("hw:cpu_policy", "dedicated"), ("hw:cpu_thread_policy", "require")];
    let none = boot(&cloud, 1, &flavor(&cloud, 2, 64, &isolated)).await;
    assert_eq!(states(&cloud, &none).await, BTreeMap::from([(VmState::Error, 1)]), "no core has two threads");
    verify(&cloud).await;
}

#[tokio::test(start_paused = true)]
async fn an_order_that_is_given_again_names_the_same_cpus() {
    let cloud = Cloud::start(CloudOptions { hosts: 1, ..two_cells() }).await;
    let own = flavor(&cloud, 3, 256, &[("hw:cpu_policy", "dedicated")]);
    let host = &cloud.hosts[&HostName::new("host00")];
    // The host takes longer than the lease: the conductor gives the order again.
    host.hang(Operation::Spawn);
    let made = cloud.boot(1, own.clone()).await.unwrap();
    cloud.pass(Duration::from_secs(90)).await;
    host.release(Operation::Spawn);
    cloud.settle().await;
    assert_eq!(states(&cloud, &made).await, BTreeMap::from([(VmState::Active, 1)]));
    verify(&cloud).await;
    // A build that fails gives its CPUs back.
    host.fail_next(Operation::Spawn, 1, ErrorKind::Failed);
    let failed = boot(&cloud, 1, &own).await;
    assert_eq!(states(&cloud, &failed).await, BTreeMap::from([(VmState::Error, 1)]));
    assert_eq!(placements(&cloud).await.len(), 1);
    let next = boot(&cloud, 1, &own).await;
    assert_eq!(states(&cloud, &next).await, BTreeMap::from([(VmState::Active, 1)]));
    verify(&cloud).await;
}

#[tokio::test(start_paused = true)]
async fn what_no_host_can_do_is_refused_at_the_door() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    let table: [(&[(&str, &str)], &str); 5] = [
        (&[("hw:numa_nodes", "3")], "cannot be evenly distributed"),
        (&[("hw:cpu_policy", "sharrred")], "CPU policy requested from 'flavor extra specs' is invalid"),
        (&[("pci_passthrough:alias", "gpu:1")], "PCI alias gpu is not defined"),
        (&[("hw:cpu_policy", "dedicated"), ("hw:cpu_realtime", "yes")], "'hw:cpu_realtime' is set to 'yes'"),
        (&[("hw:mem_page_size", "huge")], "Invalid memory page size 'huge'"),
    ];
    for (number, (specs, text)) in table.into_iter().enumerate() {
        let refused = cloud.boot(1, flavor(&cloud, 2, 256 + number as u64 * 2, specs)).await.unwrap_err();
        assert!(refused.starts_with("400 ") && refused.contains(text), "{refused}");
    }
    // Without compute.cpu_dedicated_set there is no CPU for a guest of its own.
    let own = flavor(&cloud, 1, 300, &[("hw:cpu_policy", "dedicated")]);
    let made = boot(&cloud, 1, &own).await;
    assert_eq!(states(&cloud, &made).await, BTreeMap::from([(VmState::Error, 1)]));
    cloud.check().await;
}
