//! What must hold of a cloud.

use super::*;

impl Cloud {
    /// What must hold whenever nothing is being done: reliability invariants I2, I3, I5, I6, I8 and I16.
    pub async fn check(&self) {
        use nova_virt::Hypervisor;
        assert_eq!(self.world.violations(), vec![], "a guest ran twice");
        let all = self.store.list_instances(&nova_db::InstanceQuery::default()).await.unwrap();
        let allocations = self.store.list_allocations(None).await.unwrap();
        let usage = self.store.usage(&self.project).await.unwrap();
        let counted = all.iter().map(|i| i.usage());
        assert_eq!(usage.instances, counted.clone().map(|counts| counts.instances).sum::<u64>());
        assert_eq!(usage.ram, counted.map(|counts| counts.ram).sum::<u64>());
        for image in self.store.list_images().await.unwrap() {
            assert_eq!(image.status, ImageStatus::Active, "an image that gets no data any more: {image:?}");
        }
        assert_eq!(self.copies(), Vec::<PathBuf>::new(), "copies of disks are left");
        for instance in &all {
            let own: Vec<_> = allocations.iter().filter(|a| a.instance_id == instance.id).collect();
            match &instance.host {
                Some(host) => assert_eq!((own.len(), &own[0].host), (1, host), "{instance:?}"),
                None => assert!(own.is_empty(), "{instance:?}"),
            }
            assert!(instance.task_state.is_none(), "{instance:?}");
        }
        for allocation in &allocations {
            assert!(all.iter().any(|i| i.id == allocation.instance_id), "{allocation:?} of nobody");
        }
        for node in self.store.list_nodes().await.unwrap() {
            let used = allocations.iter().filter(|a| a.host == node.host).fold(Default::default(), add);
            assert_eq!(node.used, used, "{}", node.host);
            assert_eq!(node.inventory.shortage(used, Default::default()), None);
        }
        for (host, fake) in &self.hosts {
            for guest in fake.list().await.unwrap() {
                let instance = all.iter().find(|i| i.id == guest.instance);
                assert_eq!(instance.and_then(|i| i.host.as_ref()), Some(host), "{guest:?} is a stray on {host}");
            }
        }
        for instance in all.iter().filter(|i| i.vm_state == VmState::Active) {
            let host = &self.hosts[instance.host.as_ref().unwrap()];
            assert_eq!(host.info(instance.id).await.unwrap().power_state, PowerState::Running, "{instance:?}");
            let size = host.spec_of(instance.id).map(|spec| (spec.vcpus, spec.memory_mb));
            assert_eq!(size, Some((instance.flavor.vcpus, instance.flavor.memory_mb)), "{instance:?}");
        }
        self.check_ports().await;
        self.check_volumes().await;
    }
}

fn add(sum: nova_core::flavor::Resources, a: &nova_core::host::Allocation) -> nova_core::flavor::Resources {
    sum.plus(a.resources)
}
