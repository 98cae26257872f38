use super::*;

fn map(pairs: &[(&str, &str)]) -> Properties {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Of a guest with 4 CPUs and 1024 MiB.
fn of(flavor: &[(&str, &str)], image: &[(&str, &str)]) -> Result<Option<GuestTopology>, AskedError> {
    asked(&map(flavor), &map(image), 4, 1024)
}

fn cells(sizes: &[(&[u32], u64)]) -> Vec<GuestCell> {
    sizes
        .iter()
        .map(|(cpus, memory_mb)| GuestCell { cpus: cpus.iter().copied().collect(), memory_mb: *memory_mb })
        .collect()
}

#[test]
fn flavors_and_images_become_cells() {
    use ThreadPolicy::{Isolate, Prefer, Require};
    let whole = || cells(&[(&[0, 1, 2, 3], 1024)]);
    let halves = || cells(&[(&[0, 1], 512), (&[2, 3], 512)]);
    let shared = |cells, pages| GuestTopology { cells, pages, ..GuestTopology::default() };
    let own =
        |cells, thread_policy| GuestTopology { cells, cpu_policy: CpuPolicy::Dedicated, thread_policy, pages: None };
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a [(&'a str, &'a str)], Option<GuestTopology>);
    let table: &[Case<'_>] = &[
        (&[], &[], None),
        (&[("hw:cpu_policy", "shared"), ("hw:cpu_sockets", "2"), ("quota:cpu_shares", "1")], &[], None),
        (&[("hw:cpu_realtime", "false"), ("hw:mem_encryption", "no")], &[], None),
        (&[("hw:serial_port_count", "1"), ("hw:pmu", "true")], &[("hw_pmu", "yes")], None),
        // What comes without nodes or pages says nothing, as in Nova.
        (&[("hw:numa_cpus.0", "0")], &[], None),
        (&[("hw:cpu_policy", "dedicated")], &[], Some(own(whole(), None))),
        (&[], &[("hw_cpu_policy", "dedicated")], Some(own(whole(), None))),
        (&[("hw:cpu_policy", "dedicated")], &[("hw_cpu_policy", "shared")], Some(own(whole(), None))),
        (
            &[("hw:cpu_policy", "dedicated"), ("hw:cpu_thread_policy", "prefer")],
            &[("hw_cpu_thread_policy", "isolate")],
            Some(own(whole(), Some(Isolate))),
        ),
        (
            &[("hw:cpu_policy", "dedicated"), ("hw:cpu_thread_policy", "require")],
            &[("hw_cpu_thread_policy", "require")],
            Some(own(whole(), Some(Require))),
        ),
        (
            &[("hw:cpu_policy", "dedicated"), ("hw:cpu_thread_policy", "prefer"), ("hw:numa_nodes", "2")],
            &[],
            Some(own(halves(), Some(Prefer))),
        ),
        (&[("hw:numa_nodes", "2")], &[], Some(shared(halves(), None))),
        (&[], &[("hw_numa_nodes", "2")], Some(shared(halves(), None))),
        (
            &[
                ("hw:numa_nodes", "2"),
                ("hw:numa_cpus.0", "0-2"),
                ("hw:numa_cpus.1", "3"),
                ("hw:numa_mem.0", "1000"),
                ("hw:numa_mem.1", "24"),
            ],
            &[],
            Some(shared(cells(&[(&[0, 1, 2], 1000), (&[3], 24)]), None)),
        ),
        (&[("hw:mem_page_size", "small")], &[], Some(shared(whole(), Some(PageSize::Small)))),
        (&[("hw:mem_page_size", "2048")], &[], Some(shared(whole(), Some(PageSize::Kib(2048))))),
        (&[("hw:mem_page_size", "1GiB")], &[], Some(shared(whole(), Some(PageSize::Kib(1 << 20))))),
        (&[("hw:mem_page_size", "2MB")], &[], Some(shared(whole(), Some(PageSize::Kib(2048))))),
        (
            &[("hw:mem_page_size", "any")],
            &[("hw_mem_page_size", "large")],
            Some(shared(whole(), Some(PageSize::Large))),
        ),
    ];
    for (flavor, image, expected) in table {
        assert_eq!(&of(flavor, image).unwrap(), expected, "{flavor:?} {image:?}");
        let dedicated = expected.as_ref().is_some_and(|asked| asked.cpu_policy == CpuPolicy::Dedicated);
        assert_eq!(asks_dedicated(&map(flavor), &map(image)), dedicated);
    }
}

#[test]
fn what_cannot_be_asked_for_is_refused_in_novas_words() {
    let numa = |more: &[(&'static str, &'static str)]| [&[("hw:numa_nodes", "2")], more].concat();
    type Case<'a> = (Vec<(&'a str, &'a str)>, &'a [(&'a str, &'a str)], &'a str);
    let table: Vec<Case<'_>> = vec![
        (vec![("hw:numa_nodes", "0")], &[], "The property 'numa_nodes' cannot be '0'."),
        (vec![("hw:numa_nodes", "x")], &[], "The property 'numa_nodes' cannot be 'x'."),
        (vec![("hw:numa_nodes", "4000000000")], &[], "The property 'numa_nodes' cannot be '4000000000'."),
        (numa(&[]), &[("hw_numa_nodes", "2")], "Image property 'hw_numa_nodes' is not permitted to override NUMA"),
        (vec![("hw:numa_nodes", "3")], &[], "Instance CPUs and/or memory cannot be evenly distributed"),
        (numa(&[("hw:numa_cpus.0", "0-3")]), &[], "CPU and memory allocation must be provided for all NUMA nodes"),
        (
            numa(&[("hw:numa_cpus.0", "0-3"), ("hw:numa_mem.0", "1024")]),
            &[],
            "CPU and memory allocation must be provided for all NUMA nodes",
        ),
        (
            numa(&[("hw:numa_cpus.0", "0")]),
            &[("hw_numa_cpus.0", "0")],
            "Image property 'hw_numa_cpus' is not permitted to override",
        ),
        (numa(&[("hw:numa_cpus.0", "x")]), &[], "Invalid inclusion expression 'x'"),
        (numa(&[("hw:numa_mem.0", "x")]), &[], "The value of 'hw:numa_mem.0' must be a whole number, not 'x'"),
        (halves("0-1", "2-4", "512"), &[], "CPU number 4 is larger than max 3"),
        (halves("0-1", "1-3", "512"), &[], "CPU number 1 is assigned to two nodes"),
        (halves("0-1", "3", "512"), &[], "CPU number {2} is not assigned to any node"),
        (halves("0-1", "2-3", "511"), &[], "1023 MB of memory assigned, but expected 1024 MB"),
        (vec![("hw:mem_page_size", "huge")], &[], "Invalid memory page size 'huge'"),
        (vec![("hw:mem_page_size", "0")], &[], "Invalid memory page size '0'"),
        (vec![], &[("hw_mem_page_size", "large")], "Page size large forbidden against '<empty>'"),
        (vec![("hw:mem_page_size", "2048")], &[("hw_mem_page_size", "4")], "Page size 4 forbidden against '2048'"),
        (vec![("hw:cpu_policy", "shared")], &[("hw_cpu_policy", "dedicated")], "Image property 'hw_cpu_policy' is not"),
        (
            vec![("hw:cpu_policy", "sharrred")],
            &[],
            "CPU policy requested from 'flavor extra specs' is invalid, given: 'sharrred', available: \
             '['dedicated', 'mixed', 'shared']'.",
        ),
        (vec![], &[("hw_cpu_thread_policy", "x")], "CPU thread policy requested from 'image properties' is invalid"),
        (vec![("hw:cpu_thread_policy", "prefer")], &[], "Cannot set cpu thread pinning policy in a non dedicated cpu"),
        (
            vec![("hw:cpu_policy", "dedicated"), ("hw:cpu_thread_policy", "isolate")],
            &[("hw_cpu_thread_policy", "require")],
            "Image property 'hw_cpu_thread_policy' is not permitted",
        ),
        (vec![("pci_passthrough:alias", "gpu:2, nic:1")], &[], "PCI alias gpu is not defined"),
        (
            vec![("hw:cpu_policy", "mixed")],
            &[],
            "'hw:cpu_policy' is set to 'mixed', which no host of this cloud can do",
        ),
        (vec![("hw:cpu_realtime", "true")], &[], "'hw:cpu_realtime' is set to 'true', which no host"),
        (vec![("hw:emulator_threads_policy", "share")], &[], "'hw:emulator_threads_policy' is set to 'share'"),
        (vec![("hw:serial_port_count", "2")], &[], "'hw:serial_port_count' is set to '2', which no host"),
        (vec![("hw:virtio_packed_ring", "true")], &[], "'hw:virtio_packed_ring' is set to 'true'"),
        (vec![], &[("hw_ephemeral_encryption", "1")], "'hw_ephemeral_encryption' is set to '1'"),
        (vec![("hw:redirected_usb_ports", "3")], &[], "'hw:redirected_usb_ports' is set to '3'"),
        (vec![("hw:maxphysaddr_mode", "emulate")], &[], "'hw:maxphysaddr_mode' is set to 'emulate'"),
        (vec![("accel:device_profile", "fpga")], &[], "'accel:device_profile' is set to 'fpga'"),
        (vec![("hw:pmu", "true")], &[("hw_pmu", "no")], "Flavor and image want the opposite of 'pmu'"),
        (
            vec![("hw:vif_multiqueue_enabled", "false")],
            &[("hw_vif_multiqueue_enabled", "1")],
            "Flavor and image want the opposite of 'vif_multiqueue_enabled'",
        ),
        (
            vec![("hw:cpu_max_sockets", "2"), ("hw:cpu_max_cores", "1"), ("hw:cpu_max_threads", "1")],
            &[],
            "Requested vCPU",
        ),
        (vec![], &[("hw_mem_encryption", "True")], "'hw_mem_encryption' is set to 'True'"),
    ];
    for (flavor, image, text) in table {
        let error = of(&flavor, image).unwrap_err().to_string();
        assert!(error.starts_with(text), "{flavor:?} {image:?}: {error}");
    }
}

fn halves<'a>(first: &'a str, second: &'a str, memory: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("hw:numa_nodes", "2"),
        ("hw:numa_cpus.0", first),
        ("hw:numa_cpus.1", second),
        ("hw:numa_mem.0", "512"),
        ("hw:numa_mem.1", memory),
    ]
}
