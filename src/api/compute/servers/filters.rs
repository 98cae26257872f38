//! Which servers a list shows (nova/api/openstack/compute/servers.py, `_get_servers`): what the store can select by, and
//! what is looked at afterwards.

use std::net::IpAddr;

use nova_core::context::RequestContext;
use nova_core::ids::{FlavorId, HostName, InstanceId, ProjectId, UserId};
use nova_core::instance::Instance;
use nova_core::state::{ServerStatus, TaskFilter, TaskState, VmState, matching};
use nova_db::{Deleted, InstanceQuery};
use regex::{Regex, RegexBuilder};

use super::list::parse_time;
use super::networks::ServerNetworks;
use crate::api::validate::known_query;
use crate::api::{ApiError, Microversion, Query, Request, parse_bool, policy};

/// Memory that a client's pattern may take, bytes.
const PATTERN_SIZE: usize = 1 << 18;

const PAGING: &[&str] = &["sort_key", "sort_dir", "limit", "marker"];
const TAGS: &[&str] = &["tags", "tags-any", "not-tags", "not-tags-any"];
/// Filters of everyone, at every version.
const COMMON: &[&str] = &["reservation_id", "name", "status", "image", "flavor", "ip", "changes-since", "all_tenants"];
/// Filters that are for everyone from 2.83 on.
const SINCE_83: &[&str] = &[
    "availability_zone",
    "config_drive",
    "key_name",
    "created_at",
    "launched_at",
    "terminated_at",
    "power_state",
    "task_state",
    "vm_state",
    "progress",
    "user_id",
];
/// Everything that Nova's schema knows besides.
const OTHERS: &[&str] = &[
    "project_id",
    "tenant_id",
    "launch_index",
    "image_ref",
    "kernel_id",
    "ramdisk_id",
    "hostname",
    "host",
    "node",
    "display_name",
    "description",
    "display_description",
    "locked_by",
    "uuid",
    "root_device_name",
    "access_ip_v4",
    "access_ip_v6",
    "auto_disk_config",
    "ip6",
    "deleted",
];
/// Names of tables, which Nova refuses.
const JOINED: &[&str] = &[
    "block_device_mapping",
    "services",
    "metadata",
    "system_metadata",
    "info_cache",
    "security_groups",
    "pci_devices",
];

type Predicate = Box<dyn Fn(&Instance) -> bool + Send + Sync>;

/// `ip` and `ip6`: patterns that a fixed address begins with (nova/compute/api.py, `_ip_filter`).
pub(super) struct AddressFilter {
    v4: Option<Regex>,
    v6: Option<Regex>,
}

impl AddressFilter {
    fn read(asked: &Asked<'_>) -> Result<Option<Self>, ApiError> {
        let read = |key| asked.get(key).map(|text| pattern(key, &format!("^(?:{text})"))).transpose();
        let (v4, v6) = (read("ip")?, read("ip6")?);
        Ok((v4.is_some() || v6.is_some()).then_some(Self { v4, v6 }))
    }

    /// Does one of the server's addresses fit?
    pub fn accept(&self, networks: &ServerNetworks) -> bool {
        let fits = |address: &IpAddr| {
            let pattern = if address.is_ipv4() { &self.v4 } else { &self.v6 };
            pattern.as_ref().is_some_and(|pattern| pattern.is_match(&address.to_string()))
        };
        networks.vifs.iter().flat_map(|vif| &vif.addresses).any(|held| fits(&held.address))
    }
}

/// What a list shows.
pub(super) struct Filters {
    /// For the store; without order and page.
    pub query: InstanceQuery,
    predicates: Vec<Predicate>,
    /// By their addresses, which are looked up for those that pass the rest.
    pub addresses: Option<AddressFilter>,
    /// Nothing can match.
    pub nothing: bool,
}

impl Filters {
    /// Does it pass what the store did not look at?
    pub fn accepts(&self, instance: &Instance) -> bool {
        self.predicates.iter().all(|accepts| accepts(instance))
    }

    /// Does the store's answer need no second look?
    pub fn exact(&self) -> bool {
        self.predicates.is_empty() && self.addresses.is_none()
    }

    /// Reads the query as this caller may use it. Filters that are not for them are passed over, as in Nova.
    ///
    /// # Errors
    /// 400 for what cannot be read, 403 for what only administrators may list.
    pub fn read(request: &Request, context: &RequestContext, all_tenants_rule: &str) -> Result<Self, ApiError> {
        let version = request.version;
        if version.at_least(75) && !request.lenient {
            known_query(&request.query, &known_keys())?;
        }
        check_forms(&request.query)?;
        let admin = policy::allows("os_compute_api:servers:allow_all_filters", context, policy::Target::default());
        let asked = Asked { query: &request.query, version, admin };
        let mut filters =
            Self { query: InstanceQuery::default(), predicates: Vec::new(), addresses: None, nothing: false };
        asked.refuse_joined()?;
        filters.owner(&asked, context, all_tenants_rule)?;
        filters.states(&asked)?;
        filters.times(&asked)?;
        filters.deleted(&asked, context)?;
        filters.columns(&asked);
        filters.patterns(&asked)?;
        filters.addresses = AddressFilter::read(&asked)?;
        filters.tags(&asked);
        Ok(filters)
    }

    fn owner(&mut self, asked: &Asked<'_>, context: &RequestContext, rule: &str) -> Result<(), ApiError> {
        let all = match asked.get("all_tenants") {
            None => false,
            // The bare key means yes.
            Some("") => true,
            Some(text) => parse_bool(text).ok_or_else(|| {
                ApiError::BadRequest(format!("Invalid input received: Unrecognized value '{text}' for all_tenants"))
            })?,
        };
        if all {
            policy::enforce(rule, context)?;
            let project = asked.get("project_id").or_else(|| asked.get("tenant_id"));
            self.query.project_id = project.map(ProjectId::new);
        } else {
            self.query.project_id = Some(context.project_id.clone());
        }
        self.query.user_id = asked.get("user_id").map(UserId::new);
        Ok(())
    }

    fn states(&mut self, asked: &Asked<'_>) -> Result<(), ApiError> {
        if asked.query.has("status") {
            let wanted: Vec<ServerStatus> = asked.query.all("status").filter_map(ServerStatus::parse_filter).collect();
            let states: Vec<_> =
                wanted.iter().flat_map(|status| matching(*status)).map(|(vm, task)| (vm, tasks(&task))).collect();
            if states.is_empty() {
                if asked.version.at_least(38) {
                    return Err(ApiError::bad_request("Invalid status value"));
                }
                self.nothing = true;
            }
            self.query.states = Some(states);
        }
        if let Some(text) = asked.get("vm_state") {
            let wanted: Option<VmState> = text.parse().ok();
            self.predicates.push(Box::new(move |instance| Some(instance.vm_state) == wanted));
        }
        if let Some(text) = asked.get("task_state") {
            let wanted: Option<TaskState> = text.parse().ok();
            self.predicates
                .push(Box::new(move |instance| instance.task_state.is_some() && instance.task_state == wanted));
        }
        Ok(())
    }

    fn times(&mut self, asked: &Asked<'_>) -> Result<(), ApiError> {
        let read = |key: &'static str| {
            let wrong = || ApiError::BadRequest(format!("Invalid filter field: {key}."));
            asked.get(key).map(|text| parse_time(text).ok_or_else(wrong)).transpose()
        };
        self.query.changed_since = read("changes-since")?;
        self.query.changed_before = read("changes-before")?;
        if let (Some(since), Some(before)) = (self.query.changed_since, self.query.changed_before)
            && before < since
        {
            return Err(ApiError::bad_request(
                "The value of changes-since must be less than or equal to changes-before.",
            ));
        }
        Ok(())
    }

    fn deleted(&mut self, asked: &Asked<'_>, context: &RequestContext) -> Result<(), ApiError> {
        let changes = self.query.changed_since.is_some() || self.query.changed_before.is_some();
        self.query.deleted = match asked.get("deleted").map(|text| parse_bool(text).unwrap_or(false)) {
            Some(true) => Deleted::Only,
            Some(false) => Deleted::No,
            None if changes => Deleted::Any,
            None => Deleted::No,
        };
        let only_deleted = |states: &Vec<(VmState, _)>| {
            !states.is_empty() && states.iter().all(|(vm_state, _)| *vm_state == VmState::Deleted)
        };
        if self.query.states.as_ref().is_some_and(only_deleted) {
            if !context.is_admin() {
                return Err(ApiError::forbidden("Only administrators may list deleted instances"));
            }
            self.query.deleted = Deleted::Only;
        }
        Ok(())
    }

    /// What the store selects by. An id that is none matches nothing.
    fn columns(&mut self, asked: &Asked<'_>) {
        self.query.host = asked.get("host").map(HostName::new);
        self.query.flavor_id = asked.get("flavor").map(FlavorId::new);
        if let Some(text) = asked.get("image").or_else(|| asked.get("image_ref")) {
            self.query.image_id = text.parse().ok();
            self.nothing |= self.query.image_id.is_none();
        }
        if let Some(text) = asked.get("reservation_id") {
            self.query.reservation_id = text.parse().ok();
            self.nothing |= self.query.reservation_id.is_none();
        }
        if asked.get("uuid").is_some() {
            let ids: Vec<InstanceId> = asked.query.all("uuid").filter_map(|text| text.parse().ok()).collect();
            self.nothing |= ids.is_empty();
            self.query.ids = Some(ids);
        }
        if let Some(locked) = asked.get("locked").map(|text| parse_bool(text).unwrap_or(false)) {
            self.predicates.push(Box::new(move |instance| instance.locked.is_some() == locked));
        }
    }

    /// Columns that Nova matches with a pattern.
    fn patterns(&mut self, asked: &Asked<'_>) -> Result<(), ApiError> {
        type Column = fn(&Instance) -> Option<String>;
        let columns: [(&str, Column); 14] = [
            ("name", |i| Some(i.display_name.clone())),
            ("display_name", |i| Some(i.display_name.clone())),
            ("description", |i| i.display_description.clone()),
            ("display_description", |i| i.display_description.clone()),
            ("hostname", |i| Some(i.hostname.clone())),
            ("key_name", |i| i.key_name.clone()),
            ("node", |i| i.node.clone()),
            ("availability_zone", |i| i.availability_zone.as_ref().map(ToString::to_string)),
            ("power_state", |i| Some(i.power_state.as_i64().to_string())),
            ("progress", |i| Some(i.progress.to_string())),
            ("locked_by", |i| i.locked.map(|by| by.as_str().to_owned())),
            ("access_ip_v4", |i| i.access_ip_v4.clone()),
            ("access_ip_v6", |i| i.access_ip_v6.clone()),
            ("config_drive", |i| Some(if i.config_drive { "True" } else { "" }.to_owned())),
        ];
        for (key, column) in columns {
            let Some(text) = asked.get(key) else { continue };
            let pattern = pattern(key, text)?;
            self.predicates
                .push(Box::new(move |instance| column(instance).is_some_and(|text| pattern.is_match(&text))));
        }
        if let Some(text) = asked.get("launch_index") {
            let wanted: Option<u32> = text.parse().ok();
            self.predicates.push(Box::new(move |instance| Some(instance.launch_index) == wanted));
        }
        Ok(())
    }

    fn tags(&mut self, asked: &Asked<'_>) {
        for key in TAGS {
            let Some(text) = asked.get(key) else { continue };
            let wanted: Vec<String> = text.split(',').map(str::to_owned).collect();
            let key = *key;
            self.predicates.push(Box::new(move |instance| {
                let mut has = wanted.iter().map(|tag| instance.tags.contains(tag));
                match key {
                    "tags" => has.all(|has| has),
                    "tags-any" => has.any(|has| has),
                    "not-tags" => !has.all(|has| has),
                    _ => !has.any(|has| has),
                }
            }));
        }
    }
}

/// The query, as far as this caller may use it.
struct Asked<'a> {
    query: &'a Query,
    version: Microversion,
    admin: bool,
}

impl Asked<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        if self.may_use(key) { self.query.last(key) } else { None }
    }

    fn may_use(&self, key: &str) -> bool {
        let version = self.version;
        self.admin
            || COMMON.contains(&key)
            || (key == "ip6" && version.at_least(5))
            || (TAGS.contains(&key) && version.at_least(26))
            || (key == "changes-before" && version.at_least(66))
            || (key == "locked" && version.at_least(73))
            || (SINCE_83.contains(&key) && version.at_least(83))
            || (key == "hostname" && version.at_least(90))
    }

    fn refuse_joined(&self) -> Result<(), ApiError> {
        let wrong = |key: &&str| self.admin && (JOINED.contains(key) || key.starts_with('_'));
        match self.query.keys().find(wrong) {
            Some(key) => Err(ApiError::BadRequest(format!("Invalid filter field: {key}."))),
            None => Ok(()),
        }
    }
}

fn known_keys() -> Vec<&'static str> {
    let groups = [PAGING, TAGS, COMMON, SINCE_83, OTHERS, JOINED, &["changes-before", "locked"]];
    groups.concat()
}

/// Forms that Nova's schema checks whoever asks.
fn check_forms(query: &Query) -> Result<(), ApiError> {
    for key in ["changes-since", "changes-before"] {
        if let Some(text) = query.all(key).find(|text| parse_time(text).is_none()) {
            let text =
                format!("Invalid input for query parameters {key}. Value: {text}. '{text}' is not a 'date-time'");
            return Err(ApiError::BadRequest(text));
        }
    }
    for key in ["name", "display_name", "ip", "ip6", "hostname", "key_name", "node"] {
        for text in query.all(key) {
            pattern(key, text)?;
        }
    }
    Ok(())
}

/// A client's pattern, of bounded size: matching takes time linear in the name, whatever the pattern.
fn pattern(key: &str, text: &str) -> Result<Regex, ApiError> {
    let built = RegexBuilder::new(text).size_limit(PATTERN_SIZE).dfa_size_limit(PATTERN_SIZE).build();
    let wrong = |_| {
        ApiError::BadRequest(format!(
            "Invalid input for query parameters {key}. Value: {text}. '{text}' is not a 'regex'"
        ))
    };
    built.map_err(wrong)
}

/// Task states as the store takes them.
fn tasks(filter: &TaskFilter) -> Option<Vec<Option<TaskState>>> {
    match filter {
        TaskFilter::Any => None,
        TaskFilter::Only(tasks) => Some(tasks.iter().copied().map(Some).collect()),
        TaskFilter::Except(_) => {
            let all = TaskState::ALL.iter().copied().map(Some).chain([None]);
            Some(all.filter(|task| filter.accepts(*task)).collect())
        }
    }
}
