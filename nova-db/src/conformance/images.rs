//! Images.

use std::sync::Arc;

use nova_core::ids::ProjectId;
use nova_core::image::{Image, ImageStatus, Visibility};
use nova_core::task::Work;

use super::fixtures::{Make, at};
use crate::{Kind, Store, StoreError, TaskStart};

fn image(make: &Make, seconds: i64) -> Image {
    Image {
        id: make.image_id(),
        name: Some("same name".into()),
        status: ImageStatus::Queued,
        visibility: Visibility::Private,
        owner: ProjectId::from("p"),
        disk_format: Some("qcow2".into()),
        container_format: None,
        size: None,
        virtual_size: None,
        checksum: None,
        os_hash_value: None,
        min_ram: 0,
        min_disk: 0,
        protected: false,
        os_hidden: false,
        tags: ["t".to_owned()].into(),
        properties: [("os_type".to_owned(), "linux".to_owned())].into(),
        members: Default::default(),
        created_at: at(seconds),
        updated_at: at(seconds),
        generation: 0,
    }
}

/// Create, read, change, list newest first, delete.
pub async fn images_live_and_die(store: &Arc<dyn Store>) {
    let make = Make::new();
    let mut made = store.create_image(image(&make, 1)).await.unwrap();
    let newer = store.create_image(image(&make, 2)).await.unwrap();
    assert_eq!(made.generation, 1);
    made.status = ImageStatus::Active;
    let changed = store.update_image(made.clone()).await.unwrap();
    assert_eq!(store.get_image(made.id).await.unwrap(), changed);
    assert!(matches!(store.update_image(made.clone()).await, Err(StoreError::Conflict { kind: Kind::Image, .. })));
    assert_eq!(store.list_images().await.unwrap(), [newer, changed.clone()]);
    let error = store.create_image(changed.clone()).await.unwrap_err();
    assert!(matches!(error, StoreError::Duplicate { kind: Kind::Image, field: "id", .. }), "{error:?}");
    store.delete_image(made.id).await.unwrap();
    assert!(matches!(store.delete_image(made.id).await, Err(StoreError::NotFound { kind: Kind::Image, .. })));
    assert!(matches!(store.update_image(changed).await, Err(StoreError::NotFound { kind: Kind::Image, .. })));
}

/// An image that a task makes is described with the task, and not without it.
pub async fn an_image_comes_with_its_task(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (instance, _) = make.building(&**store).await;
    let image = image(&make, 1);
    let work = Work::CreateImage { image_id: image.id };
    let start = |instance| TaskStart { image: Some(image.clone()), ..make.start(instance, work.clone(), false) };
    let now = store.update_instance(instance.clone()).await.unwrap();
    let error = store.start_task(start(&instance)).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { kind: Kind::Instance, .. }), "{error:?}");
    assert!(matches!(store.get_image(image.id).await, Err(StoreError::NotFound { kind: Kind::Image, .. })));
    store.start_task(start(&now)).await.unwrap();
    assert_eq!(store.get_image(image.id).await.unwrap(), Image { generation: 1, ..image.clone() });
}

/// A deletion ends what makes an image of the server, and the image goes with it; one that has its data stays.
pub async fn a_superseded_snapshot_takes_its_image_along(store: &Arc<dyn Store>) {
    let make = Make::new();
    for (status, stays) in [(ImageStatus::Queued, false), (ImageStatus::Saving, false), (ImageStatus::Active, true)] {
        let (instance, _) = make.building(&**store).await;
        let image = store.create_image(Image { status, ..image(&make, 1) }).await.unwrap();
        let bystander = store.create_image(Image { status, ..self::image(&make, 1) }).await.unwrap();
        let snapshot = make.start(&instance, Work::CreateImage { image_id: image.id }, false);
        let instance = store.start_task(snapshot).await.unwrap();
        store.start_task(make.start(&instance, Work::Delete, true)).await.unwrap();
        assert_eq!(store.get_image(image.id).await.is_ok(), stays, "{status:?}");
        assert!(store.get_image(bystander.id).await.is_ok(), "{status:?}");
    }
}
