//! Asking the cloud, as its users do.

use super::*;

impl Cloud {
    /// A flavor of that size.
    pub fn flavor(&self, vcpus: u32, memory_mb: u64) -> Flavor {
        Flavor {
            id: FlavorId::new("1"),
            name: "m1.test".into(),
            vcpus,
            memory_mb,
            root_gb: 1,
            ephemeral_gb: 0,
            swap_mb: 0,
            rxtx_factor: 1.0,
            disabled: false,
            is_public: true,
            description: None,
            extra_specs: BTreeMap::new(),
            access: BTreeSet::new(),
            created_at: self.clock.now(),
            updated_at: None,
            generation: 0,
        }
    }

    /// Asks for servers; their ids come when the answer is 202.
    pub async fn boot(&self, count: u32, flavor: Flavor) -> Result<Vec<InstanceId>, String> {
        self.boot_from(ImageId::generate(&*self.entropy), count, flavor).await
    }

    /// The same, from that image.
    pub async fn boot_from(&self, image: ImageId, count: u32, flavor: Flavor) -> Result<Vec<InstanceId>, String> {
        let id = FlavorId::new(format!("{}-{}", flavor.vcpus, flavor.memory_mb));
        match self.store.create_flavor(Flavor { name: id.to_string(), id: id.clone(), ..flavor }).await {
            Ok(_) | Err(StoreError::Duplicate { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        let server = json!({"name": "server", "flavorRef": id, "imageRef": image, "networks": "none",
            "min_count": count, "max_count": count, "return_reservation_id": true});
        let (status, answer) = self.call("POST", "/compute/v2.1/servers", Some(json!({"server": server}))).await;
        if status != 202 {
            return Err(format!("{status} {answer}"));
        }
        let reservation_id = Some(answer["reservation_id"].as_str().unwrap().parse().unwrap());
        let query = InstanceQuery { reservation_id, ..InstanceQuery::default() };
        let mut made = self.store.list_instances(&query).await.unwrap();
        made.sort_by_key(|instance| instance.launch_index);
        Ok(made.into_iter().map(|instance| instance.id).collect())
    }

    /// Begins an action; false: not allowed now.
    pub async fn act(&self, id: InstanceId, action: Action) -> bool {
        let path = format!("/compute/v2.1/servers/{id}");
        let body = match action {
            Action::Delete => return self.call("DELETE", &path, None).await.0 == 204,
            Action::Start => json!({"os-start": null}),
            Action::Stop => json!({"os-stop": null}),
            Action::RebootSoft => json!({"reboot": {"type": "SOFT"}}),
            Action::RebootHard => json!({"reboot": {"type": "HARD"}}),
            Action::Pause => json!({"pause": null}),
            Action::Unpause => json!({"unpause": null}),
            Action::Suspend => json!({"suspend": null}),
            Action::Resume => json!({"resume": null}),
            Action::Restore => json!({"restore": null}),
            Action::ForceDelete => json!({"forceDelete": null}),
            Action::TriggerCrashDump => json!({"trigger_crash_dump": null}),
            Action::Rescue => json!({"rescue": {}}),
            Action::Unrescue => json!({"unrescue": null}),
            Action::Rebuild => json!({"rebuild": {"imageRef": ImageId::generate(&*self.entropy)}}),
            Action::CreateImage => json!({"createImage": {"name": "image"}}),
            Action::CreateBackup => json!({"createBackup": {"name": "b", "backup_type": "daily", "rotation": 1}}),
            Action::ChangePassword => json!({"changePassword": {"adminPass": "secret"}}),
            other => panic!("{other:?} is not built"),
        };
        let (status, answer) = self.call("POST", &format!("{path}/action"), Some(body)).await;
        assert!(matches!(status, 200 | 202 | 404 | 409), "{status} {answer}");
        matches!(status, 200 | 202)
    }

    /// A request of the demo user through the whole pipeline, without a socket.
    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.call_with(&self.token, 104, method, path, body).await
    }

    /// The same at an older microversion.
    pub async fn call_at(&self, minor: u16, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.call_with(&self.token, minor, method, path, body).await
    }

    /// The same of the administrator.
    pub async fn call_as_admin(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.call_with(&self.admin_token, 104, method, path, body).await
    }

    /// The same at an older microversion.
    pub async fn call_as_admin_at(&self, minor: u16, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.call_with(&self.admin_token, minor, method, path, body).await
    }

    async fn call_with(&self, token: &str, minor: u16, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "cloud")
            .header("x-auth-token", token)
            .header("openstack-api-version", format!("compute 2.{minor}"))
            .header("content-type", "application/json");
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let answer = self.api.handle(request.body(body).unwrap()).await;
        let status = answer.status().as_u16();
        let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    pub async fn get(&self, id: InstanceId) -> Instance {
        self.store.get_instance(id).await.unwrap()
    }
}
