//! `rescue`, `unrescue` and `changePassword` (nova/api/openstack/compute/rescue.py, admin_password.py).

use std::sync::Arc;

use http::StatusCode;
use nova_core::context::RequestContext;
use nova_core::contracts::ImageServiceError;
use nova_core::ids::ImageId;
use nova_core::image::ImageMeta;
use nova_core::instance::Instance;
use nova_core::state::Action;
use nova_core::task::Work;
use nova_db::StoreError;
use serde_json::{Value, json};

use super::actions::{Besides, Start};
use super::create::generate_password;
use super::{Servers, fields};
use crate::api::validate::{Fields, Text};
use crate::api::{ApiError, HandlerResult, Request, Response, parse_bool};

/// What libvirt's hosts call their hypervisor.
const QEMU: &str = "QEMU";
/// The trait of hosts that rescue servers which boot from a volume.
const RESCUE_BFV: &str = "COMPUTE_RESCUE_BFV";

impl Servers {
    pub(super) async fn rescue(self: Arc<Self>, request: Request, body: Value) -> HandlerResult {
        let (password, image_ref) = parse(&body, request.lenient)?;
        let password = self.password(password);
        let context = request.context()?;
        let image = match image_ref {
            Some(id) => Some(self.rescue_image(context, &id).await?),
            None => None,
        };
        let instance = self.api.visible_instance(context, request.param("id")).await?;
        if instance.image.is_none() {
            self.check_volume_backed(&request, &instance, image.as_ref()).await?;
        }
        let image = image.or(instance.image).ok_or_else(|| unsupported("None"))?;
        let work = Work::Rescue { image, admin_password: Some(password.clone()) };
        let rule = "os_compute_api:os-rescue";
        self.api.begin(&request, Start { rule, action: Action::Rescue, work, supersede: false }).await?;
        let shown = self.api.options.get().enable_instance_password;
        let answer = if shown { json!({"adminPass": password}) } else { json!({}) };
        Ok(Response::json(StatusCode::OK, &answer))
    }

    pub(super) async fn unrescue(self: Arc<Self>, request: Request, _: Value) -> HandlerResult {
        let rule = "os_compute_api:os-unrescue";
        let start = Start { rule, action: Action::Unrescue, work: Work::Unrescue, supersede: false };
        self.api.begin(&request, start).await?;
        Ok(Response::empty(StatusCode::ACCEPTED))
    }

    pub(super) async fn change_password(self: Arc<Self>, request: Request, body: Value) -> HandlerResult {
        let mut fields = Fields::of("changePassword", &body, request.lenient)?;
        let password = fields.required_text("adminPass", Text::new(0, usize::MAX))?.to_owned();
        fields.finish()?;
        let (rule, work) = ("os_compute_api:os-admin-password", Work::ChangePassword { password });
        let instance = self.api.visible_instance(request.context()?, request.param("id")).await?;
        let without_agent = self.has_no_agent(&instance).await?;
        // What forbids it besides is told first.
        let change = move |_: &mut Instance, _: &mut Work| match without_agent {
            true => Err(ApiError::conflict("QEMU guest agent is not enabled")),
            false => Ok(()),
        };
        let besides = Besides { change: Some(&change), ..Besides::default() };
        let start = Start { rule, action: Action::ChangePassword, work, supersede: false };
        self.api.begin_with(&request, start, besides).await?;
        Ok(Response::empty(StatusCode::ACCEPTED))
    }

    /// Is it known that nobody in its guest could set a password? Under QEMU a guest has a way to an agent only if its image asks
    /// for one (nova/virt/libvirt/driver.py, `_can_set_admin_password`); under other drivers unless it says that there is none.
    /// Whether an agent answers is found out by the host.
    async fn has_no_agent(&self, instance: &Instance) -> Result<bool, ApiError> {
        let said = instance.image_properties().get("hw_qemu_guest_agent");
        match (said, &instance.host) {
            (Some(said), _) => Ok(parse_bool(said) == Some(false)),
            (None, None) => Ok(false),
            (None, Some(host)) => match self.api.store.node_of_host(host).await {
                Ok(node) => Ok(node.hypervisor_type == QEMU),
                Err(StoreError::NotFound { .. }) => Ok(false),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// The password that was given, or a new one.
    pub(super) fn password(&self, given: Option<String>) -> String {
        given.unwrap_or_else(|| generate_password(&*self.api.entropy, self.api.options.get().password_length))
    }

    /// What Nova asks of servers that boot from a volume: 2.87, a host that can, and an image that says where its disk belongs, so
    /// that the guest's own stay in their places. Nova finds out about the image when the guest is off, and leaves it in ERROR.
    async fn check_volume_backed(
        &self,
        request: &Request,
        instance: &Instance,
        image: Option<&ImageMeta>,
    ) -> Result<(), ApiError> {
        let refused =
            |why: &str| Err(ApiError::BadRequest(format!("Instance {} cannot be rescued: {why}", instance.id)));
        if !request.version.at_least(87) {
            return refused("Cannot rescue a volume-backed instance");
        }
        // One that is on no host is refused for its state.
        if let Some(host) = &instance.host {
            let node = self.api.store.node_of_host(host).await?;
            if !node.facts.traits.contains(RESCUE_BFV) {
                return refused("Host unable to rescue a volume-backed instance");
            }
        }
        let says = |name: &&str| image.is_some_and(|image| image.properties.contains_key(*name));
        if image.is_some() && !["hw_rescue_device", "hw_rescue_bus"].iter().any(says) {
            return refused("The rescue image of a volume-backed instance needs hw_rescue_device or hw_rescue_bus");
        }
        Ok(())
    }

    async fn rescue_image(&self, context: &RequestContext, id: &str) -> Result<ImageMeta, ApiError> {
        let parsed: ImageId = id.parse().map_err(|_| unsupported(id))?;
        match self.api.images.bootable_image(context, parsed).await {
            Ok(image) if image.size > 0 => Ok(image),
            Ok(_) | Err(ImageServiceError::NotFound { .. } | ImageServiceError::NotActive { .. }) => {
                Err(unsupported(id))
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn unsupported(image: &str) -> ApiError {
    ApiError::BadRequest(format!("Requested rescue image '{image}' is not supported"))
}

/// `{"adminPass": …, "rescue_image_ref": …}`, both optional, or null.
fn parse(body: &Value, lenient: bool) -> Result<(Option<String>, Option<String>), ApiError> {
    if body.is_null() {
        return Ok((None, None));
    }
    let mut fields_of = Fields::of("rescue", body, lenient)?;
    let password = fields_of.text("adminPass", Text::new(0, usize::MAX))?.map(str::to_owned);
    let image =
        fields_of.get("rescue_image_ref").map(|value| fields::image_id("rescue_image_ref", value)).transpose()?;
    fields_of.finish()?;
    Ok((password, image))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rescue_says_what_it_likes_and_nothing_else() {
        assert_eq!(parse(&Value::Null, false).unwrap(), (None, None));
        let image = "70a599e0-31e7-49b7-b260-868f441e862b";
        let read = parse(&json!({"adminPass": "x", "rescue_image_ref": image}), false).unwrap();
        assert_eq!(read, (Some("x".to_owned()), Some(image.to_owned())));
        for bad in [json!([]), json!("x"), json!({"rescue_image_ref": "x"}), json!({"adminPass": 1}), json!({"a": 1})] {
            assert!(parse(&bad, false).is_err(), "{bad}");
        }
    }
}
