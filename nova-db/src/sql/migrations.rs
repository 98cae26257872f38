//! The steps that made the schema what it is. A step that was released is never changed: what it declares is repeated
//! here, and not taken from the tables as they are now.

use crate::rows::Column;

/// One step of the schema's history.
#[derive(Debug)]
pub(super) struct Migration {
    /// 1, 2, 3, …
    pub(super) version: u32,
    /// What it does, in order.
    pub(super) steps: &'static [Step],
}

/// A change of the schema.
#[derive(Debug)]
pub(super) enum Step {
    /// A new table.
    Table(NewTable),
    /// New sequences, standing at 0.
    Sequences(&'static [&'static str]),
    /// An index instead of another one.
    Index(NewIndex),
}

/// An index that takes the place of another of the same table.
#[derive(Debug)]
pub(super) struct NewIndex {
    /// The table's name.
    pub(super) table: &'static str,
    /// What rows are looked up by from now on.
    pub(super) columns: &'static [&'static str],
    /// What they were looked up by so far.
    pub(super) instead_of: &'static [&'static str],
}

/// A table as it was when it was made.
#[derive(Debug)]
pub(super) struct NewTable {
    /// Its name.
    pub(super) name: &'static str,
    /// Its columns, key first; `generation` and `body` come on top.
    pub(super) columns: &'static [Column],
    /// How many columns are the key.
    pub(super) key: usize,
    /// What else is unique.
    pub(super) unique: &'static [&'static [&'static str]],
    /// What rows are looked up by.
    pub(super) indexes: &'static [&'static [&'static str]],
}

/// The version that this program needs.
pub(super) fn newest() -> u32 {
    MIGRATIONS.last().map_or(0, |migration| migration.version)
}

/// All steps, oldest first.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, steps: FIRST },
    Migration { version: 2, steps: GROUPS },
    Migration { version: 3, steps: NETWORKS },
    Migration { version: 4, steps: NETWORK_HOSTS },
    Migration { version: 5, steps: MOVES },
    Migration { version: 6, steps: BOOKS_VERSION },
    Migration { version: 7, steps: QUOTAS },
    Migration { version: 8, steps: VOLUMES },
    Migration { version: 9, steps: CONSOLES },
    Migration { version: 10, steps: SERVERS_OF_A_HOST },
];

const FIRST: &[Step] = &[
    Step::Sequences(&["instance", "service", "compute_node", "keypair", "identity"]),
    Step::Table(NewTable {
        name: "instances",
        columns: &[
            Column::uuid("id"),
            Column::text("project_id", 255),
            Column::text("user_id", 255),
            Column::uuid("reservation_id"),
            Column::text("host", 255),
            Column::text("node", 255),
            Column::text("vm_state", 64),
            Column::text("task_state", 64),
            Column::int("power_state"),
            Column::uuid("image_id"),
            Column::text("flavor_id", 255),
            Column::flag("deleted"),
            Column::time("deleted_at"),
            Column::time("created_at"),
            Column::time("updated_at"),
            Column::time("launched_at"),
            Column::text("display_name", 255),
            Column::text("hostname", 255),
            Column::text("key_name", 255),
            Column::text("availability_zone", 255),
            Column::int("launch_index"),
            Column::int("memory_mb"),
            Column::int("vcpus"),
            Column::int("root_gb"),
            Column::flag("locked"),
            Column::int("progress"),
        ],
        key: 1,
        unique: &[],
        indexes: &[
            &["project_id", "deleted", "created_at", "id"],
            &["deleted", "created_at", "id"],
            &["host", "deleted"],
            &["reservation_id"],
            &["deleted", "updated_at"],
            &["deleted", "deleted_at"],
        ],
    }),
    Step::Table(NewTable {
        name: "requests",
        columns: &[Column::text("project_id", 255), Column::text("request_id", 64)],
        key: 2,
        unique: &[],
        indexes: &[],
    }),
    Step::Table(NewTable {
        name: "tasks",
        columns: &[
            Column::uuid("id"),
            Column::uuid("instance_id"),
            Column::text("owner", 255),
            Column::time("lease_until"),
            Column::time("created_at"),
        ],
        key: 1,
        unique: &[],
        indexes: &[&["instance_id"], &["lease_until", "id"]],
    }),
    Step::Table(NewTable {
        name: "actions",
        columns: &[Column::uuid("instance_id"), Column::text("request_id", 64), Column::time("started")],
        key: 2,
        unique: &[],
        indexes: &[],
    }),
    Step::Table(NewTable {
        name: "allocations",
        columns: &[Column::uuid("instance_id"), Column::text("host", 255)],
        key: 2,
        unique: &[],
        indexes: &[&["host", "instance_id"]],
    }),
    Step::Table(NewTable {
        name: "usages",
        columns: &[Column::text("project_id", 255)],
        key: 1,
        unique: &[],
        indexes: &[],
    }),
    Step::Table(NewTable {
        name: "services",
        columns: &[
            Column::uuid("id"),
            Column::text("binary_name", 255),
            Column::text("host", 255),
            Column::text("zone", 255),
            Column::time("last_seen_up"),
            Column::int("version"),
        ],
        key: 1,
        unique: &[&["binary_name", "host"]],
        indexes: &[],
    }),
    Step::Table(NewTable {
        name: "compute_nodes",
        columns: &[Column::uuid("id"), Column::text("host", 255), Column::text("hypervisor_hostname", 255)],
        key: 1,
        unique: &[&["host", "hypervisor_hostname"]],
        indexes: &[],
    }),
    Step::Table(NewTable {
        name: "flavors",
        columns: &[Column::text("id", 255), Column::text("name", 255)],
        key: 1,
        unique: &[&["name"]],
        indexes: &[],
    }),
    Step::Table(NewTable {
        name: "keypairs",
        columns: &[Column::text("user_id", 255), Column::text("name", 255)],
        key: 2,
        unique: &[],
        indexes: &[],
    }),
    Step::Table(NewTable {
        name: "domains",
        columns: &[Column::text("id", 64), Column::text("folded_name", 255)],
        key: 1,
        unique: &[&["folded_name"]],
        indexes: &[],
    }),
    Step::Table(NewTable {
        name: "projects",
        columns: &[Column::text("id", 255), Column::text("domain_id", 64), Column::text("folded_name", 255)],
        key: 1,
        unique: &[&["domain_id", "folded_name"]],
        indexes: &[&["folded_name"]],
    }),
    Step::Table(NewTable {
        name: "users",
        columns: &[Column::text("id", 255), Column::text("domain_id", 64), Column::text("folded_name", 255)],
        key: 1,
        unique: &[&["domain_id", "folded_name"]],
        indexes: &[&["folded_name"]],
    }),
    Step::Table(NewTable {
        name: "roles",
        columns: &[Column::text("id", 64), Column::text("folded_name", 255)],
        key: 1,
        unique: &[&["folded_name"]],
        indexes: &[],
    }),
    Step::Table(NewTable {
        name: "grants",
        columns: &[Column::text("project_id", 255), Column::text("user_id", 255), Column::text("role_id", 64)],
        key: 3,
        unique: &[],
        indexes: &[&["user_id"], &["role_id"]],
    }),
    Step::Table(NewTable { name: "secrets", columns: &[Column::text("name", 255)], key: 1, unique: &[], indexes: &[] }),
    Step::Table(NewTable {
        name: "revoked_tokens",
        columns: &[Column::text("audit_id", 255), Column::time("expires")],
        key: 1,
        unique: &[],
        indexes: &[&["expires", "audit_id"]],
    }),
    Step::Table(NewTable {
        name: "images",
        columns: &[Column::uuid("id"), Column::time("created_at")],
        key: 1,
        unique: &[],
        indexes: &[&["created_at", "id"]],
    }),
];

/// Host aggregates and server groups.
const GROUPS: &[Step] = &[
    Step::Sequences(&["aggregate", "aggregate_change", "server_group"]),
    Step::Table(NewTable {
        name: "aggregates",
        columns: &[Column::int("number"), Column::text("name", 255)],
        key: 1,
        unique: &[&["name"]],
        indexes: &[],
    }),
    Step::Table(NewTable {
        name: "aggregate_hosts",
        columns: &[Column::int("aggregate_number"), Column::text("host", 255)],
        key: 2,
        unique: &[],
        indexes: &[&["host", "aggregate_number"]],
    }),
    Step::Table(NewTable {
        name: "server_groups",
        columns: &[Column::uuid("id"), Column::text("project_id", 255), Column::int("number")],
        key: 1,
        unique: &[],
        indexes: &[&["project_id", "number"]],
    }),
    Step::Table(NewTable {
        name: "server_group_members",
        columns: &[Column::uuid("group_id"), Column::uuid("instance_id")],
        key: 2,
        unique: &[],
        indexes: &[&["instance_id"]],
    }),
];

/// Networks and what is on them.
const NETWORKS: &[Step] = &[
    Step::Table(NewTable {
        name: "networks",
        columns: &[
            Column::uuid("id"),
            Column::text("project_id", 255),
            Column::text("name", 255),
            Column::flag("shared"),
            Column::flag("external"),
            Column::flag("admin_state_up"),
            Column::time("created_at"),
        ],
        key: 1,
        unique: &[],
        indexes: &[&["project_id", "created_at", "id"], &["created_at", "id"]],
    }),
    Step::Table(NewTable {
        name: "subnets",
        columns: &[
            Column::uuid("id"),
            Column::uuid("network_id"),
            Column::text("project_id", 255),
            Column::text("name", 255),
            Column::text("cidr", 64),
            Column::int("ip_version"),
            Column::text("gateway_ip", 64),
            Column::flag("enable_dhcp"),
            Column::flag("shared"),
            Column::time("created_at"),
        ],
        key: 1,
        unique: &[],
        indexes: &[&["network_id"], &["project_id", "created_at", "id"], &["created_at", "id"]],
    }),
    Step::Table(NewTable {
        name: "free_ranges",
        columns: &[Column::uuid("subnet_id"), Column::text("last_address", 32), Column::text("first_address", 32)],
        key: 2,
        unique: &[],
        indexes: &[],
    }),
    Step::Table(NewTable {
        name: "addresses",
        columns: &[Column::uuid("subnet_id"), Column::text("address", 32), Column::uuid("owner_id")],
        key: 2,
        unique: &[],
        indexes: &[&["owner_id"], &["address"]],
    }),
    Step::Table(NewTable {
        name: "ports",
        columns: &[
            Column::uuid("id"),
            Column::uuid("network_id"),
            Column::text("mac_address", 17),
            Column::text("project_id", 255),
            Column::text("name", 255),
            Column::text("device_id", 255),
            Column::text("device_owner", 255),
            Column::text("host", 255),
            Column::text("status", 16),
            Column::flag("admin_state_up"),
            Column::time("created_at"),
        ],
        key: 1,
        unique: &[&["network_id", "mac_address"]],
        indexes: &[
            &["network_id", "device_owner"],
            &["device_id"],
            &["host"],
            &["project_id", "created_at", "id"],
            &["created_at", "id"],
        ],
    }),
    Step::Table(NewTable {
        name: "port_security_groups",
        columns: &[Column::uuid("port_id"), Column::uuid("group_id")],
        key: 2,
        unique: &[],
        indexes: &[&["group_id"]],
    }),
    Step::Table(NewTable {
        name: "floating_ips",
        columns: &[
            Column::uuid("id"),
            Column::text("project_id", 255),
            Column::uuid("floating_network_id"),
            Column::text("floating_ip_address", 64),
            Column::text("fixed_ip_address", 64),
            Column::uuid("port_id"),
            Column::uuid("router_id"),
            Column::text("status", 16),
            Column::text("fixed_key", 128),
            Column::time("created_at"),
        ],
        key: 1,
        unique: &[&["fixed_key"]],
        indexes: &[
            &["port_id"],
            &["router_id"],
            &["floating_network_id"],
            &["project_id", "created_at", "id"],
            &["created_at", "id"],
        ],
    }),
    Step::Table(NewTable {
        name: "routers",
        columns: &[
            Column::uuid("id"),
            Column::text("project_id", 255),
            Column::text("name", 255),
            Column::flag("admin_state_up"),
            Column::time("created_at"),
        ],
        key: 1,
        unique: &[],
        indexes: &[&["project_id", "created_at", "id"], &["created_at", "id"]],
    }),
    Step::Table(NewTable {
        name: "security_groups",
        columns: &[
            Column::uuid("id"),
            Column::text("project_id", 255),
            Column::text("name", 255),
            Column::text("default_of", 255),
            Column::time("created_at"),
        ],
        key: 1,
        unique: &[&["default_of"]],
        indexes: &[&["project_id", "created_at", "id"], &["created_at", "id"]],
    }),
    Step::Table(NewTable {
        name: "security_group_rules",
        columns: &[
            Column::uuid("id"),
            Column::uuid("security_group_id"),
            Column::text("project_id", 255),
            Column::text("direction", 8),
            Column::text("ethertype", 8),
            Column::text("protocol", 64),
            Column::uuid("remote_group_id"),
            Column::text("remote_ip_prefix", 64),
            Column::int("port_range_min"),
            Column::int("port_range_max"),
            Column::text("fingerprint", 255),
            Column::time("created_at"),
        ],
        key: 1,
        unique: &[&["security_group_id", "fingerprint"]],
        indexes: &[&["remote_group_id"], &["project_id", "created_at", "id"], &["created_at", "id"]],
    }),
    Step::Table(NewTable {
        name: "network_usages",
        columns: &[Column::text("project_id", 255), Column::text("resource", 32)],
        key: 2,
        unique: &[],
        indexes: &[],
    }),
];

const NETWORK_HOSTS: &[Step] = &[
    Step::Table(NewTable {
        name: "network_segments",
        columns: &[
            Column::text("network_type", 16),
            Column::text("physical_network", 64),
            Column::int("segmentation_id"),
            Column::uuid("network_id"),
        ],
        key: 3,
        unique: &[],
        indexes: &[&["network_id"]],
    }),
    Step::Table(NewTable {
        name: "network_agents",
        columns: &[Column::text("host", 255), Column::uuid("id"), Column::time("heard_at")],
        key: 1,
        unique: &[&["id"]],
        indexes: &[],
    }),
    Step::Table(NewTable {
        name: "network_states",
        columns: &[Column::text("host", 255)],
        key: 1,
        unique: &[],
        indexes: &[],
    }),
];

const MOVES: &[Step] = &[
    Step::Sequences(&["migration"]),
    Step::Table(NewTable {
        name: "port_arrivals",
        columns: &[Column::uuid("port_id"), Column::text("host", 255)],
        key: 1,
        unique: &[],
        indexes: &[&["host"]],
    }),
    Step::Table(NewTable {
        name: "migrations",
        columns: &[
            Column::uuid("uuid"),
            Column::int("id"),
            Column::uuid("instance_id"),
            Column::text("migration_type", 32),
            Column::text("status", 32),
            Column::text("source_compute", 255),
            Column::text("dest_compute", 255),
            Column::text("project_id", 255),
            Column::text("user_id", 255),
            Column::time("created_at"),
            Column::time("updated_at"),
        ],
        key: 1,
        unique: &[&["id"]],
        indexes: &[
            &["instance_id", "id"],
            &["source_compute", "status"],
            &["dest_compute", "status"],
            &["status", "id"],
        ],
    }),
];

const BOOKS_VERSION: &[Step] = &[Step::Table(NewTable {
    name: "network_versions",
    columns: &[Column::int("part")],
    key: 1,
    unique: &[],
    indexes: &[],
})];

/// Limits that operators set.
const QUOTAS: &[Step] = &[Step::Table(NewTable {
    name: "quotas",
    columns: &[Column::text("scope", 16), Column::text("name", 255), Column::text("user_id", 255)],
    key: 3,
    unique: &[],
    indexes: &[],
})];

/// Leave to open consoles.
const CONSOLES: &[Step] = &[Step::Table(NewTable {
    name: "console_auth_tokens",
    columns: &[Column::text("token_hash", 64), Column::uuid("instance_id"), Column::time("expires_at")],
    key: 1,
    unique: &[],
    indexes: &[&["instance_id"], &["expires_at"]],
})];
/// Volumes and what hangs on them.
const VOLUMES: &[Step] = &[
    Step::Table(NewTable {
        name: "volumes",
        columns: &[
            Column::uuid("id"),
            Column::text("project_id", 255),
            Column::text("user_id", 255),
            Column::text("name", 255),
            Column::text("status", 32),
            Column::int("size"),
            Column::text("availability_zone", 255),
            Column::flag("bootable"),
            Column::flag("multiattach"),
            Column::uuid("volume_type_id"),
            Column::text("pool", 512),
            Column::time("created_at"),
            Column::time("updated_at"),
        ],
        key: 1,
        unique: &[],
        indexes: &[
            &["project_id", "created_at", "id"],
            &["created_at", "id"],
            &["pool"],
            &["volume_type_id"],
            &["status"],
        ],
    }),
    Step::Table(NewTable {
        name: "volume_snapshots",
        columns: &[
            Column::uuid("id"),
            Column::uuid("volume_id"),
            Column::text("project_id", 255),
            Column::text("name", 255),
            Column::text("status", 32),
            Column::int("size"),
            Column::uuid("volume_type_id"),
            Column::text("pool", 512),
            Column::time("created_at"),
            Column::time("updated_at"),
        ],
        key: 1,
        unique: &[],
        indexes: &[
            &["volume_id"],
            &["project_id", "created_at", "id"],
            &["created_at", "id"],
            &["pool"],
            &["volume_type_id"],
        ],
    }),
    Step::Table(NewTable {
        name: "volume_attachments",
        columns: &[
            Column::uuid("id"),
            Column::uuid("volume_id"),
            Column::text("project_id", 255),
            Column::uuid("instance_id"),
            Column::text("host", 255),
            Column::text("status", 32),
            Column::time("created_at"),
        ],
        key: 1,
        unique: &[],
        indexes: &[&["volume_id"], &["instance_id"], &["host"], &["created_at", "id"]],
    }),
    Step::Table(NewTable {
        name: "volume_types",
        columns: &[Column::uuid("id"), Column::text("name", 255), Column::time("created_at")],
        key: 1,
        unique: &[&["name"]],
        indexes: &[],
    }),
    Step::Table(NewTable {
        name: "volume_transfers",
        columns: &[
            Column::uuid("id"),
            Column::uuid("volume_id"),
            Column::text("project_id", 255),
            Column::text("name", 255),
            Column::time("created_at"),
        ],
        key: 1,
        unique: &[&["volume_id"]],
        indexes: &[&["project_id", "created_at", "id"], &["created_at", "id"]],
    }),
    Step::Table(NewTable {
        name: "volume_tasks",
        columns: &[
            Column::uuid("id"),
            Column::uuid("volume_id"),
            Column::uuid("source_id"),
            Column::text("host", 255),
            Column::time("lease_until"),
            Column::time("deadline"),
            Column::time("created_at"),
        ],
        key: 1,
        unique: &[],
        indexes: &[&["volume_id"], &["source_id"], &["host", "lease_until", "id"], &["deadline", "id"]],
    }),
    Step::Table(NewTable {
        name: "volume_pools",
        columns: &[Column::text("name", 512), Column::text("host", 255), Column::time("heard_at")],
        key: 1,
        unique: &[],
        indexes: &[],
    }),
    Step::Table(NewTable {
        name: "volume_usages",
        columns: &[Column::text("project_id", 255), Column::text("resource", 64)],
        key: 2,
        unique: &[],
        indexes: &[],
    }),
];

const SERVERS_OF_A_HOST: &[Step] = &[Step::Index(NewIndex {
    table: "instances",
    columns: &["host", "deleted", "created_at", "id"],
    instead_of: &["host", "deleted"],
})];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::TABLES;

    /// What the store asks for is what the steps together make.
    #[test]
    fn the_steps_make_the_tables() {
        let steps = || MIGRATIONS.iter().flat_map(|migration| migration.steps);
        let made = steps().filter_map(|step| if let Step::Table(table) = step { Some(table) } else { None });
        let made: Vec<&NewTable> = made.collect();
        assert_eq!(made.len(), TABLES.len());
        for (made, table) in made.iter().zip(TABLES) {
            assert_eq!((made.name, made.columns, made.key), (table.name, table.columns, table.key));
            let mut indexes = made.indexes.to_vec();
            for step in steps() {
                if let Step::Index(index) = step
                    && index.table == made.name
                {
                    let old = indexes.iter().position(|columns| *columns == index.instead_of);
                    indexes.remove(old.expect("the index that goes was made before"));
                    indexes.push(index.columns);
                }
            }
            assert_eq!((made.unique, &indexes[..]), (table.unique, table.indexes), "{}", table.name);
        }
    }

    #[test]
    fn versions_grow_by_one() {
        assert!(MIGRATIONS.iter().zip(1..).all(|(migration, version)| migration.version == version));
    }
}
