//! Takes over an intent, at any time: what is new comes, what is gone goes, what is different changes.
//!
//! Invariant: an intent that says the same again changes nothing, and what one application's part says touches no other
//! application.

use std::{collections::BTreeSet, sync::Arc};

use mobula_schema as schema;
use tracing::info;

use super::{
    Action, State, Time,
    condition::{Condition, Happened},
    handover::Handover,
    model::{App, Deployment, Failures, Key, Outlook, Spec},
};
use crate::intent::{Intent, Meta};

impl State {
    /// Makes this the intent.
    pub(super) fn intend(&mut self, intent: Arc<Intent>, now: Time, actions: &mut Vec<Action>) {
        // The ledger also tells of numbers that it has written down.
        let told = intent.config != self.intent.config || intent.applications != self.intent.applications;
        let capacity = intent.config.options.target_capacity != self.intent.config.options.target_capacity;
        self.intent = intent.clone();
        self.regroup();
        let wanted: BTreeSet<&str> = intent
            .config
            .applications
            .iter()
            .map(|app| app.name.as_str())
            .collect();
        let gone: Vec<String> = self
            .apps
            .iter()
            .filter(|(name, app)| !app.deleting && !wanted.contains(name.as_str()))
            .map(|(name, _)| name.clone())
            .collect();
        let others = !gone.is_empty() || wanted.iter().any(|name| !self.apps.contains_key(*name));
        for name in gone {
            self.delete_app(&name);
        }
        for application in &intent.config.applications {
            let meta = intent.applications.get(&application.name);
            self.intend_app(application, meta.copied().unwrap_or_default(), now, actions);
        }
        if capacity {
            info!(percent = ?intent.config.options.target_capacity, "target capacity changed");
        }
        if others {
            self.fill_anew();
        }
        let keys: Vec<Key> = self.deployments.keys().copied().collect();
        for key in keys {
            self.retarget(key, now, actions);
        }
        self.routes.changed |= told;
        self.room_changed |= told;
    }

    fn delete_app(&mut self, name: &str) {
        info!(app = %name, "application is deleted");
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        app.deleting = true;
        for key in app.deployments.clone() {
            self.delete_deployment(key);
        }
        // One that never had a deployment is gone at once.
        if self.apps.get(name).is_some_and(|app| app.deployments.is_empty()) {
            self.apps.remove(name);
        }
    }

    fn delete_deployment(&mut self, key: Key) {
        let Some(deployment) = self.deployments.get_mut(&key) else {
            return;
        };
        deployment.deleting = true;
        deployment.target = 0;
        deployment.condition.handle(Happened::Delete, "");
        self.forget_scaler(key);
        self.touch(key);
    }

    fn intend_app(
        &mut self,
        application: &schema::Application,
        meta: Meta,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let before = self.apps.get(&application.name);
        // Deployed again, even if as before: what an automatic rollback turned away is tried once more.
        let again = before.is_some_and(|app| app.meta.resource_version != meta.resource_version);
        let before = before.map(|app| app.deployments.clone()).unwrap_or_default();
        let back = before.iter().find_map(|key| self.is_followed(*key, application));
        let mut keys = Vec::with_capacity(application.deployments.len());
        for config in &application.deployments {
            let known = before
                .iter()
                .copied()
                .find(|key| self.deployments.get(key).is_some_and(|d| d.name() == config.name));
            let key = if let Some(key) = known {
                let from = self.deployments.get(&key).and_then(Deployment::updated_from);
                self.change(key, config, again, now, actions);
                if let Some(why) = &back
                    && from.is_some_and(|from| config.version() == from)
                {
                    self.goes_back_too(key, why, now);
                }
                key
            } else {
                self.create(&application.name, config)
            };
            keys.push(key);
        }
        let gone: Vec<Key> = before.into_iter().filter(|key| !keys.contains(key)).collect();
        for key in &gone {
            self.delete_deployment(*key);
        }
        keys.extend(gone);
        let app = App {
            route_prefix: application.route_prefix.clone(),
            import_path: application.import_path.clone(),
            img_size: application.img_size,
            external_scaler: application.external_scaler,
            document: application.document.to_string(),
            asks: self
                .apps
                .remove(&application.name)
                .map(|app| app.asks)
                .unwrap_or_default(),
            meta,
            deployments: keys,
            deleting: false,
            handover: Handover::default(),
        };
        self.apps.insert(application.name.clone(), app);
    }

    /// Why the application goes back with a deployment that did so by itself, if this intent does.
    fn is_followed(&self, key: Key, application: &schema::Application) -> Option<String> {
        let deployment = self.deployments.get(&key)?;
        let rollout = deployment.rollout.as_ref()?;
        let turned = deployment.spec.version != deployment.intended.version;
        let mut configs = application.deployments.iter();
        let config = configs.find(|config| config.name == deployment.name())?;
        (turned && config.version() == deployment.spec.version).then(|| {
            format!(
                "the update of {} in the same application failed: {}",
                deployment.name(),
                rollout.error
            )
        })
    }

    fn create(&mut self, app: &str, config: &schema::Deployment) -> Key {
        self.last_key += 1;
        let key = Key(self.last_key);
        let spec = Spec::new(config.clone());
        info!(%app, deployment = %config.name, version = %spec.version, "deployment is new");
        let deployment = Deployment {
            app: app.to_owned(),
            intended: spec.clone(),
            spec,
            proven: None,
            target: 0,
            deleting: false,
            rollout: None,
            condition: Condition::default(),
            failures: Failures::default(),
            replicas: BTreeSet::new(),
            pending: BTreeSet::new(),
            running: BTreeSet::new(),
            failed: BTreeSet::new(),
            outdated: BTreeSet::new(),
            steady: BTreeSet::new(),
            unlit: BTreeSet::new(),
            stopping: BTreeSet::new(),
            shunned: BTreeSet::new(),
            reason: None,
            outlook: Outlook {
                expected: true,
                why_none: String::new(),
            },
        };
        self.deployments.insert(key, deployment);
        self.touch(key);
        key
    }

    fn change(
        &mut self,
        key: Key,
        config: &schema::Deployment,
        again: bool,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let Some(deployment) = self.deployments.get_mut(&key) else {
            return;
        };
        let revived = std::mem::take(&mut deployment.deleting);
        if revived {
            deployment.condition = Condition::default();
            deployment.failures = Failures::default();
        }
        let rolled_back = deployment.spec.version != deployment.intended.version;
        if deployment.intended.config == *config && !revived && !(rolled_back && again) {
            return;
        }
        let spec = Spec::new(config.clone());
        let same = spec.version == deployment.intended.version;
        let before = std::mem::replace(&mut deployment.intended, spec.clone());
        if rolled_back && same && !again {
            // It goes on as it was before the update that failed, until another is asked for.
            return;
        }
        if spec.version == deployment.spec.version {
            info!(app = %deployment.app, deployment = %config.name, "deployment changes without a restart");
            let only_count = {
                let mut like = before.config.clone();
                like.count.clone_from(&config.count);
                same && like == *config
            };
            if !only_count {
                deployment.condition.handle(Happened::ConfigUpdate, "");
            }
            self.set_spec(key, spec, now, actions);
        } else {
            deployment.condition.handle(Happened::ConfigUpdate, "");
            self.begin_update(key, spec, now, actions);
        }
    }
}
