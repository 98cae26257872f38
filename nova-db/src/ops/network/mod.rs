//! The books of the network.

mod addresses;
mod books;
mod concerned;
mod floating;
mod groups;
pub(in crate::ops) mod hosts;
mod join;
mod mend;
mod networks;
mod ports;
pub(in crate::ops) mod query;
mod routers;
mod segments;
mod subnets;
mod usage;
mod version;

pub(super) use join::Joiner;
use version::part_of;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use nova_core::ids::{
    FloatingIpId, HostName, NetworkId, PortId, ProjectId, RouterId, SecurityGroupId, SecurityGroupRuleId, SubnetId,
};
use nova_core::network::{
    FloatingIp, Network, NetworkProblem, NetworkResource, Port, PortStatus, Router, SecurityGroup, SecurityGroupRule,
    Subnet,
};

use super::{RowStore, Run, conflict, need, operation, output_of, replace};
use crate::rows::{Backend, Fail, Lock, Output, Record, Transaction, Value};
use crate::{
    FloatingIpField, FloatingTarget, GatewayChange, InterfaceRef, ListQuery, NetworkAccount, NetworkField,
    NetworkStore, NewFloatingIp, NewInterface, NewPort, PortChange, PortQuery, RouterField, RuleField,
    SecurityGroupField, SegmentRange, StoreError, SubnetField,
};

type Answer<T> = Result<T, StoreError>;

impl From<NetworkProblem> for Fail {
    fn from(problem: NetworkProblem) -> Self {
        StoreError::Network(problem).into()
    }
}

/// The record of that id.
async fn get<R: Record>(tx: &mut dyn Transaction, id: impl std::fmt::Display + Send) -> Result<R, Fail> {
    Ok(need::<R>(tx, &[Value::text(id)], Lock::None).await?.record)
}

/// Writes a record over the one of the generation that the caller read, which is given.
async fn write_over<R: Record>(tx: &mut dyn Transaction, record: &R, read: u64, key: [Value; 1]) -> Result<(), Fail> {
    if replace(tx, record, read).await? { Ok(()) } else { Err(conflict::<R>(&key)) }
}

#[allow(private_bounds, reason = "which backends there are is this crate's business; builders implement the traits")]
impl<B: Backend> RowStore<B> {
    /// A write that changes the books: who asks whether they were changed hears of it.
    async fn change<I, T>(&self, part: u8, input: I, run: Run<I, T>) -> Answer<T>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
    {
        let input = Arc::new(input);
        let operation = operation(move |tx| {
            let input = Arc::clone(&input);
            Box::pin(async move {
                let output = run(tx, &input).await?;
                version::raise(tx, part).await?;
                Ok(Box::new(output) as Output)
            })
        });
        output_of(self.backend.name(), self.backend.write(operation).await?)
    }
}

#[async_trait]
impl<B: Backend> NetworkStore for RowStore<B> {
    async fn create_network(&self, network: Network, limit: Option<u64>) -> Answer<Network> {
        let part = part_of(network.id);
        self.change(part, (network, limit), |tx, (network, limit)| Box::pin(networks::create(tx, network, *limit)))
            .await
    }
    async fn create_network_in(
        &self,
        network: Network,
        ranges: Vec<SegmentRange>,
        draw: u64,
        limit: Option<u64>,
    ) -> Answer<Network> {
        let part = part_of(network.id);
        let input = (network, ranges, draw, limit);
        self.change(part, input, |tx, (network, ranges, draw, limit)| {
            Box::pin(networks::create_in(tx, network, ranges, *draw, *limit))
        })
        .await
    }
    async fn get_network(&self, id: NetworkId) -> Answer<Network> {
        self.read(&id, |tx, id| Box::pin(get(tx, *id))).await
    }
    async fn list_networks(&self, query: &ListQuery<NetworkField>) -> Answer<Vec<Network>> {
        self.read(query, |tx, query| Box::pin(query::networks(tx, query))).await
    }
    async fn update_network(&self, network: Network) -> Answer<Network> {
        let part = part_of(network.id);
        self.change(part, network, |tx, network| Box::pin(networks::update(tx, network))).await
    }
    async fn delete_network(&self, id: NetworkId) -> Answer<Network> {
        let part = part_of(id);
        self.change(part, id, |tx, id| Box::pin(networks::delete(tx, *id))).await
    }

    async fn create_subnet(&self, subnet: Subnet, asked_by: Option<ProjectId>, limit: Option<u64>) -> Answer<Subnet> {
        let part = part_of(subnet.id);
        let input = (subnet, asked_by, limit);
        self.change(part, input, |tx, (subnet, by, limit)| Box::pin(subnets::create(tx, subnet, by.as_ref(), *limit)))
            .await
    }
    async fn get_subnet(&self, id: SubnetId) -> Answer<Subnet> {
        self.read(&id, |tx, id| Box::pin(get(tx, *id))).await
    }
    async fn list_subnets(&self, query: &ListQuery<SubnetField>) -> Answer<Vec<Subnet>> {
        self.read(query, |tx, query| Box::pin(query::subnets(tx, query))).await
    }
    async fn update_subnet(&self, subnet: Subnet) -> Answer<Subnet> {
        let part = part_of(subnet.id);
        self.change(part, subnet, |tx, subnet| Box::pin(subnets::update(tx, subnet))).await
    }
    async fn delete_subnet(&self, id: SubnetId) -> Answer<Subnet> {
        let part = part_of(id);
        self.change(part, id, |tx, id| Box::pin(subnets::delete(tx, *id))).await
    }

    async fn create_ports(&self, new: Vec<NewPort>) -> Answer<Vec<Port>> {
        if self.backend.joins() {
            return join::create(&self.ports, &self.backend, new).await;
        }
        let part = new.first().map_or(0, |new| part_of(new.port.id));
        self.change(part, new, |tx, new| Box::pin(ports::create_all(tx, new))).await
    }
    async fn get_port(&self, id: PortId) -> Answer<Port> {
        self.read(&id, |tx, id| Box::pin(get(tx, *id))).await
    }
    async fn list_ports(&self, query: &PortQuery) -> Answer<Vec<Port>> {
        self.read(query, |tx, query| Box::pin(query::ports(tx, query))).await
    }
    async fn update_port(&self, change: PortChange) -> Answer<Port> {
        let part = part_of(change.port.id);
        self.change(part, change, |tx, change| Box::pin(ports::update(tx, change))).await
    }
    async fn delete_port(&self, id: PortId) -> Answer<Port> {
        if self.backend.joins() {
            return join::delete(&self.ports, &self.backend, id).await;
        }
        self.change(part_of(id), id, |tx, id| Box::pin(ports::delete(tx, *id))).await
    }
    async fn set_port_statuses(&self, host: &HostName, statuses: &BTreeMap<PortId, PortStatus>) -> Answer<Vec<Port>> {
        if statuses.is_empty() {
            return Ok(Vec::new());
        }
        let input = (host.clone(), statuses.clone());
        self.write(input, |tx, (host, statuses)| Box::pin(ports::set_statuses(tx, host, statuses))).await
    }

    async fn create_floating_ip(&self, new: NewFloatingIp) -> Answer<FloatingIp> {
        let part = part_of(new.id);
        self.change(part, new, |tx, new| Box::pin(floating::create(tx, new))).await
    }
    async fn get_floating_ip(&self, id: FloatingIpId) -> Answer<FloatingIp> {
        self.read(&id, |tx, id| Box::pin(get(tx, *id))).await
    }
    async fn list_floating_ips(&self, query: &ListQuery<FloatingIpField>) -> Answer<Vec<FloatingIp>> {
        self.read(query, |tx, query| Box::pin(query::own(tx, query))).await
    }
    async fn associate_floating_ip(&self, floating: FloatingIp, target: Option<FloatingTarget>) -> Answer<FloatingIp> {
        let part = part_of(floating.id);
        let input = (floating, target);
        self.change(part, input, |tx, (floating, target)| Box::pin(floating::associate(tx, floating, *target))).await
    }
    async fn delete_floating_ip(&self, id: FloatingIpId) -> Answer<FloatingIp> {
        let part = part_of(id);
        self.change(part, id, |tx, id| Box::pin(floating::delete(tx, *id))).await
    }

    async fn create_router(&self, router: Router, gateway: GatewayChange, limit: Option<u64>) -> Answer<Router> {
        let part = part_of(router.id);
        let input = (router, gateway, limit);
        self.change(part, input, |tx, (router, gateway, limit)| Box::pin(routers::create(tx, router, gateway, *limit)))
            .await
    }
    async fn get_router(&self, id: RouterId) -> Answer<Router> {
        self.read(&id, |tx, id| Box::pin(get(tx, *id))).await
    }
    async fn list_routers(&self, query: &ListQuery<RouterField>) -> Answer<Vec<Router>> {
        self.read(query, |tx, query| Box::pin(query::own(tx, query))).await
    }
    async fn update_router(&self, router: Router, gateway: GatewayChange) -> Answer<Router> {
        let part = part_of(router.id);
        self.change(part, (router, gateway), |tx, (router, gateway)| Box::pin(routers::update(tx, router, gateway)))
            .await
    }
    async fn delete_router(&self, id: RouterId) -> Answer<Router> {
        let part = part_of(id);
        self.change(part, id, |tx, id| Box::pin(routers::delete(tx, *id))).await
    }
    async fn add_router_interface(&self, id: RouterId, interface: NewInterface) -> Answer<Port> {
        let part = part_of(id);
        self.change(part, (id, interface), |tx, (id, interface)| Box::pin(routers::add_interface(tx, *id, interface)))
            .await
    }
    async fn remove_router_interface(&self, id: RouterId, which: InterfaceRef) -> Answer<Port> {
        let part = part_of(id);
        self.change(part, (id, which), |tx, (id, which)| Box::pin(routers::remove_interface(tx, *id, *which))).await
    }

    async fn default_security_group(&self, group: SecurityGroup) -> Answer<SecurityGroup> {
        // Nearly always it is there.
        if let Some(known) = self.read(&group, |tx, group| Box::pin(groups::default_of(tx, &group.project_id))).await? {
            return Ok(known);
        }
        let part = part_of(group.id);
        self.change(part, group, |tx, group| Box::pin(groups::make_default(tx, group))).await
    }
    async fn create_security_group(
        &self,
        group: SecurityGroup,
        limit: Option<u64>,
        rule_limit: Option<u64>,
    ) -> Answer<SecurityGroup> {
        let part = part_of(group.id);
        let input = (group, limit, rule_limit);
        self.change(part, input, |tx, (group, limit, rules)| Box::pin(groups::create(tx, group, *limit, *rules))).await
    }
    async fn get_security_group(&self, id: SecurityGroupId) -> Answer<SecurityGroup> {
        self.read(&id, |tx, id| Box::pin(groups::get(tx, *id))).await
    }
    async fn list_security_groups(&self, query: &ListQuery<SecurityGroupField>) -> Answer<Vec<SecurityGroup>> {
        self.read(query, |tx, query| Box::pin(groups::list_groups(tx, query))).await
    }
    async fn list_bare_security_groups(&self, query: &ListQuery<SecurityGroupField>) -> Answer<Vec<SecurityGroup>> {
        self.read(query, |tx, query| Box::pin(query::own(tx, query))).await
    }
    async fn update_security_group(&self, group: SecurityGroup) -> Answer<SecurityGroup> {
        let part = part_of(group.id);
        self.change(part, group, |tx, group| Box::pin(groups::update(tx, group))).await
    }
    async fn delete_security_group(&self, id: SecurityGroupId, with_default: bool) -> Answer<SecurityGroup> {
        let part = part_of(id);
        self.change(part, (id, with_default), |tx, (id, with_default)| Box::pin(groups::delete(tx, *id, *with_default)))
            .await
    }
    async fn create_security_group_rules(
        &self,
        rules: Vec<SecurityGroupRule>,
        limit: Option<u64>,
    ) -> Answer<Vec<SecurityGroupRule>> {
        let part = rules.first().map_or(0, |rule| part_of(rule.id));
        self.change(part, (rules, limit), |tx, (rules, limit)| Box::pin(groups::add_rules(tx, rules, *limit))).await
    }
    async fn get_security_group_rule(&self, id: SecurityGroupRuleId) -> Answer<SecurityGroupRule> {
        self.read(&id, |tx, id| Box::pin(get(tx, *id))).await
    }
    async fn list_security_group_rules(&self, query: &ListQuery<RuleField>) -> Answer<Vec<SecurityGroupRule>> {
        self.read(query, |tx, query| Box::pin(query::own(tx, query))).await
    }
    async fn delete_security_group_rule(&self, id: SecurityGroupRuleId) -> Answer<()> {
        let part = part_of(id);
        self.change(part, id, |tx, id| Box::pin(groups::remove_rule(tx, *id))).await
    }

    async fn network_accounts(&self, project: &ProjectId) -> Answer<BTreeMap<NetworkResource, NetworkAccount>> {
        self.read(project, |tx, project| Box::pin(usage::accounts(tx, project))).await
    }
    async fn set_network_limits(
        &self,
        project: &ProjectId,
        limits: BTreeMap<NetworkResource, Option<Option<u64>>>,
    ) -> Answer<()> {
        let input = (project.clone(), limits);
        self.write(input, |tx, (project, limits)| Box::pin(usage::set_limits(tx, project, limits))).await
    }
    async fn count_addresses(&self, subnet: SubnetId) -> Answer<(u128, u64)> {
        self.read(&subnet, |tx, subnet| Box::pin(addresses::count(tx, *subnet))).await
    }
    async fn mend_addresses(&self, subnet: SubnetId) -> Answer<Vec<String>> {
        self.write(subnet, |tx, subnet| Box::pin(mend::addresses(tx, *subnet))).await
    }
}
