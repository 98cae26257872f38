//! `POST /servers`: one transaction, then 202. Whatever dies after it, the servers are built or fail in bounded time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use nova_core::action::ActionRecord;
use nova_core::context::RequestContext;
use nova_core::entropy::Entropy;
use nova_core::flavor::Resources;
use nova_core::ids::{InstanceId, RequestId, ReservationId, TaskId};
use nova_core::instance::{Instance, sanitize_hostname};
use nova_core::quota::QuotaExceeded;
use nova_core::request::{FlavorWish, ImageWish, Purpose, RequestSpec};
use nova_core::state::{Action, PowerState, States};
use nova_core::task::{BuildNetworks, Task, Work};
use nova_db::{JoinGroup, Kind, NewInstance, NewInstances, StoreError};
use serde_json::json;

use super::body::{self, CreateBody};
use super::resolve::{Resolved, no_group, resolve};
use super::{Servers, view};
use crate::api::compute::volume_attachments::{device_for, root_device_for};
use crate::api::compute::{ComputeApi, links};
use crate::api::{ApiError, HandlerResult, Request, Response, policy};

/// Letters and digits that cannot be taken for each other (oslo.utils, nova/utils.py `generate_password`).
const PASSWORD_SYMBOLS: [&[u8]; 3] = [b"23456789", b"ABCDEFGHJKLMNPQRSTUVWXYZ", b"abcdefghijkmnopqrstuvwxyz"];

impl Servers {
    pub(super) async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let json = request.json().await?;
        let body = body::parse(&json, request.version, request.lenient)?;
        let context = request.context()?.clone();
        policy::enforce("os_compute_api:servers:create", &context)?;
        let resolved = resolve(&self.api, &context, &body).await?;
        let password = match &body.admin_pass {
            Some(password) => password.clone(),
            None => generate_password(&*self.api.entropy, self.api.options.get().password_length),
        };
        let intent =
            Intent { api: &self.api, context: &context, body: &body, resolved: &resolved, password: &password };
        let made = intent.write().await?;
        let first = made.servers.first().ok_or_else(|| ApiError::internal("a create request made no server"))?;
        if body.return_reservation_id {
            return Ok(Response::json(StatusCode::ACCEPTED, &json!({"reservation_id": first.reservation_id})));
        }
        let password = if made.repeated { self.first_password(first).await? } else { Some(password) };
        Ok(self.created(&request, &body, first, password.as_deref()))
    }

    /// The password that the first of repeated calls set, while the server is still being built.
    async fn first_password(&self, server: &Instance) -> Result<Option<String>, ApiError> {
        let tasks = self.api.store.list_tasks(Some(server.id)).await?;
        Ok(tasks.into_iter().find_map(|task| match task.work {
            Work::Build { admin_password, .. } => admin_password,
            _ => None,
        }))
    }

    fn created(&self, request: &Request, body: &CreateBody, server: &Instance, password: Option<&str>) -> Response {
        let id = server.id.to_string();
        let groups = match &body.security_groups {
            Some(names) => names.iter().map(|name| json!({"name": name})).collect(),
            None => vec![json!({"name": "default"})],
        };
        let mut out = json!({
            "id": id,
            "links": links::links(&request.base_url, "servers", &id),
            "OS-DCF:diskConfig": view::disk_config(server),
            "security_groups": groups,
        });
        if let Some(password) = password.filter(|_| self.api.options.get().enable_instance_password) {
            out["adminPass"] = json!(password);
        }
        let location = format!("{}/servers/{id}", request.base_url);
        Response::json(StatusCode::ACCEPTED, &json!({"server": out})).header(header::LOCATION, &location)
    }
}

/// A checked request on its way into the store.
struct Intent<'a> {
    api: &'a ComputeApi,
    context: &'a RequestContext,
    body: &'a CreateBody,
    resolved: &'a Resolved,
    password: &'a str,
}

/// What a request made.
struct Made {
    servers: Vec<Instance>,
    /// An earlier call with the same request id made them.
    repeated: bool,
}

impl Intent<'_> {
    /// Writes as many servers as quota allows, at most `max_count`, at least `min_count`.
    async fn write(&self) -> Result<Made, ApiError> {
        let mut count = self.resolved.most;
        let mut context = self.context.clone();
        loop {
            let new = self.plan(&context, count);
            let ids: Vec<InstanceId> = new.instances.iter().map(|new| new.instance.id).collect();
            let tasks: Vec<TaskId> = new.instances.iter().map(|new| new.task.id).collect();
            match self.api.store.create_instances(new).await {
                Ok(made) if made.iter().map(|server| server.id).eq(ids.iter().copied()) => {
                    self.api.start_tasks(&context, &tasks).await;
                    return Ok(Made { servers: made, repeated: false });
                }
                // The same call again, as clients make it when the first answer was lost.
                Ok(made) if self.is_ours(&made) => return Ok(Made { servers: made, repeated: true }),
                // The request id was used for other servers before (some clients send one id with all that they do): this
                // is no repetition, so it gets an id of its own.
                Ok(_) => context.request_id = RequestId::generate(&*self.api.entropy),
                Err(StoreError::Quota(exceeded)) if exceeded.0.iter().any(|o| o.resource == "server_group_members") => {
                    return Err(ApiError::OverQuota("Quota exceeded, too many servers in group".to_owned()));
                }
                // Deleted since it was looked up.
                Err(StoreError::NotFound { kind: Kind::ServerGroup, id }) => return Err(no_group(id)),
                Err(StoreError::Quota(exceeded)) => {
                    let fits = self.how_many_fit(&exceeded).min(count.saturating_sub(1));
                    if fits < self.body.min_count {
                        return Err(ApiError::OverQuota(exceeded.to_string()));
                    }
                    count = fits;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Are these the servers that this request asks for?
    fn is_ours(&self, made: &[Instance]) -> bool {
        let count = u32::try_from(made.len()).unwrap_or(u32::MAX);
        (self.body.min_count..=self.body.max_count).contains(&count)
            && made.iter().enumerate().all(|(index, server)| {
                server.display_name == self.name(index, made.len())
                    && server.user_id == self.context.user_id
                    && server.flavor.id == self.resolved.flavor.id
                    && server.image.as_ref().map(|image| image.id) == self.resolved.image.as_ref().map(|image| image.id)
                    && server.user_data == self.body.user_data
                    && server.metadata == self.body.metadata
            })
    }

    fn how_many_fit(&self, exceeded: &QuotaExceeded) -> u32 {
        let flavor = &self.resolved.flavor;
        let fits = exceeded.0.iter().map(|over| {
            let each = match over.resource.as_str() {
                "cores" => u64::from(flavor.vcpus),
                "ram" => flavor.memory_mb,
                _ => 1,
            };
            over.limit.saturating_sub(over.used) / each.max(1)
        });
        u32::try_from(fits.min().unwrap_or(0)).unwrap_or(u32::MAX)
    }

    fn plan(&self, context: &RequestContext, count: u32) -> NewInstances {
        let now = self.api.clock.now();
        let entropy = &*self.api.entropy;
        let ids: Vec<InstanceId> = (0..count).map(|_| InstanceId::generate(entropy)).collect();
        let reservation = ReservationId::generate(entropy);
        let spec = self.spec(&ids);
        let instances = ids
            .iter()
            .enumerate()
            .map(|(index, id)| {
                let instance = self.instance(context, *id, index, ids.len(), reservation, now);
                let action = action_record(context, *id, Action::Create, now);
                NewInstance { action, task: self.task(context, &instance, &spec, now), instance }
            })
            .collect();
        let quotas = &self.resolved.quotas;
        let join = |id| JoinGroup { id, member_limit: quotas.get("server_group_members") };
        NewInstances {
            instances,
            limits: quotas.limits(),
            user_limits: quotas.user_limits(),
            group: self.resolved.group.map(join),
        }
    }

    fn spec(&self, ids: &[InstanceId]) -> RequestSpec {
        let Resolved { flavor, image, volume_image, placement, .. } = self.resolved;
        let properties = image.as_ref().map_or(volume_image, |image| &image.properties);
        let property = |name: &str| properties.get(name).cloned();
        let booked = flavor.booked_resources(properties);
        // A root disk that is a volume is none of the host's.
        let volume = if self.resolved.disks.boots_from_volume() { flavor.root_gb } else { 0 };
        let resources = Resources { disk_gb: booked.disk_gb.saturating_sub(volume), ..booked };
        RequestSpec {
            instances: ids.to_vec(),
            purpose: Purpose::Create,
            project_id: self.context.project_id.to_string(),
            resources,
            availability_zone: placement.zone.clone(),
            force_host: placement.force_host.clone(),
            force_node: placement.force_node.clone(),
            requested_host: placement.requested_host.clone(),
            ignore_hosts: Vec::new(),
            may_stay: false,
            architecture: property("hw_architecture").or_else(|| property("architecture")),
            alternates: self.api.options.get().max_attempts.saturating_sub(1),
            hints: self.body.hints.clone(),
            fresh: false,
            flavor: FlavorWish { name: flavor.name.clone(), extra_specs: flavor.extra_specs.clone() },
            image: match image {
                Some(image) => Some(ImageWish { id: image.id, properties: image.properties.clone() }),
                None => ImageWish::of_volume(volume_image),
            },
            group: None,
            topology: self.resolved.topology.clone(),
        }
    }

    fn task(&self, context: &RequestContext, instance: &Instance, spec: &RequestSpec, now: Timestamp) -> Task {
        let key = instance.key_name.clone().zip(instance.key_data.clone());
        let work = Work::Build {
            spec: spec.clone(),
            selection: None,
            admin_password: Some(self.password.to_owned()),
            keys: key.into_iter().collect(),
            networks: BuildNetworks {
                requested: self.body.networks.clone(),
                security_groups: self.body.security_groups.clone().unwrap_or_default(),
            },
        };
        self.api.new_task(context, instance.id, work, self.api.options.get().instance_build_timeout, now)
    }

    fn name(&self, index: usize, count: usize) -> String {
        if count == 1 { self.body.name.clone() } else { format!("{}-{}", self.body.name, index + 1) }
    }

    fn instance(
        &self,
        context: &RequestContext,
        id: InstanceId,
        index: usize,
        count: usize,
        reservation_id: ReservationId,
        now: Timestamp,
    ) -> Instance {
        let (body, resolved) = (self.body, self.resolved);
        let States { vm_state, task_state, .. } = States::created();
        let display_name = self.name(index, count);
        let hostname = match &body.hostname {
            Some(hostname) => hostname.clone(),
            None => sanitize_hostname(&display_name, &format!("server-{id}")),
        };
        let mut instance = Instance {
            id,
            number: 0,
            project_id: context.project_id.clone(),
            user_id: context.user_id.clone(),
            reservation_id,
            launch_index: u32::try_from(index).unwrap_or(u32::MAX),
            request_id: context.request_id.clone(),
            display_name,
            display_description: body.description.clone(),
            hostname,
            image: resolved.image.clone(),
            volume_image: resolved.volume_image.clone(),
            flavor: resolved.flavor.clone(),
            local_disks: resolved.local_disks.clone(),
            volumes: resolved.disks.of_server(&*self.api.entropy),
            key_name: resolved.keypair.as_ref().map(|key| key.name.clone()),
            key_data: resolved.keypair.as_ref().map(|key| key.public_key.clone()),
            user_data: body.user_data.clone(),
            config_drive: body.config_drive,
            metadata: body.metadata.clone(),
            tags: body.tags.clone(),
            availability_zone: resolved.placement.zone.clone(),
            pinned_availability_zone: resolved.placement.zone.clone(),
            scheduler_hints: body.hints.clone(),
            host: None,
            node: None,
            vm_state,
            task_state,
            previous_vm_state: None,
            device_places: Vec::new(),
            soft_deleted_at: None,
            system_metadata: BTreeMap::new(),
            power_state: PowerState::NoState,
            progress: 0,
            locked: None,
            locked_reason: None,
            access_ip_v4: body.addresses.v4.clone(),
            access_ip_v6: body.addresses.v6.clone(),
            auto_disk_config: body.auto_disk_config,
            security_groups: body.security_groups.clone().unwrap_or_else(|| vec!["default".to_owned()]),
            fault: None,
            created_at: now,
            updated_at: now,
            launched_at: None,
            terminated_at: None,
            deleted_at: None,
            epoch: 0,
            generation: 0,
        };
        for place in 0..instance.volumes.len() {
            let root = instance.volumes[place].is_root();
            let device = if root { root_device_for(&instance) } else { device_for(&instance) };
            instance.volumes[place].device = Some(device);
        }
        instance.set_trusted_certs(body.trusted_certificates.as_deref());
        instance
    }
}

/// A password for a guest's administrator.
pub(in crate::api::compute) fn new_password(api: &ComputeApi) -> String {
    generate_password(&*api.entropy, api.options.get().password_length)
}

/// The record of an action that begins now.
pub(in crate::api::compute) fn action_record(
    context: &RequestContext,
    instance_id: InstanceId,
    action: Action,
    now: Timestamp,
) -> ActionRecord {
    ActionRecord {
        instance_id,
        request_id: context.request_id.clone(),
        action: action.action_record().unwrap_or(action.name()).to_owned(),
        user_id: context.user_id.clone(),
        project_id: context.project_id.clone(),
        started: now,
        finished: None,
        message: None,
        updated: now,
        events: Vec::new(),
    }
}

impl ComputeApi {
    /// A task that anyone may take up at once.
    pub(crate) fn new_task(
        &self,
        context: &RequestContext,
        instance_id: InstanceId,
        work: Work,
        allowed: Duration,
        now: Timestamp,
    ) -> Task {
        let allowed = SignedDuration::try_from(allowed).unwrap_or(SignedDuration::MAX);
        Task {
            id: TaskId::generate(&*self.entropy),
            instance_id,
            work,
            context: context.clone(),
            epoch: 0,
            log: Vec::new(),
            destination: None,
            alternates: Vec::new(),
            awaited: None,
            held_up: None,
            owner: None,
            lease_until: now,
            deadline: now.saturating_add(allowed).unwrap_or(Timestamp::MAX),
            created_at: now,
            generation: 0,
        }
    }

    /// Hurries a conductor along. Its failure is no error: the tasks are in the store, and are found there.
    pub(crate) async fn start_tasks(&self, context: &RequestContext, tasks: &[TaskId]) {
        if let Err(error) = self.orders.start_tasks(context, tasks).await {
            let request_id = &context.request_id;
            tracing::warn!(%request_id, error = &error as &dyn std::error::Error, "no conductor was told of new tasks");
        }
    }
}

/// Characters of all three kinds, evenly drawn (nova/utils.py, `generate_password`).
pub(super) fn generate_password(entropy: &dyn Entropy, length: usize) -> String {
    let draw = |symbols: &[u8]| symbols[entropy.below(symbols.len() as u64) as usize] as char;
    let all: Vec<u8> = PASSWORD_SYMBOLS.concat();
    let mut password: Vec<char> = PASSWORD_SYMBOLS.iter().take(length).map(|symbols| draw(symbols)).collect();
    while password.len() < length {
        password.push(draw(&all));
    }
    // Fisher and Yates, so that the first three places tell nothing.
    for index in (1..password.len()).rev() {
        password.swap(index, entropy.below(index as u64 + 1) as usize);
    }
    password.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use nova_core::entropy::SeededEntropy;

    use super::*;

    #[test]
    fn passwords_have_all_kinds_and_the_asked_length() {
        for seed in 0..200 {
            let password = generate_password(&SeededEntropy::new(seed), 12);
            assert_eq!(password.len(), 12);
            for kind in PASSWORD_SYMBOLS {
                assert!(password.bytes().any(|byte| kind.contains(&byte)), "{password}");
            }
        }
        assert_eq!(generate_password(&SeededEntropy::new(1), 2).len(), 2);
    }
}
