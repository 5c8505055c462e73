//! Two digests of a deployment: one of what a running replica cannot change about itself, one of everything else.
//!
//! Invariant: every field of a deployment but its name is in exactly one of them.

use std::{collections::BTreeMap, fmt::Write};

use mobula_serving::place::{Amounts, Match, Selector};
use sha2::{Digest, Sha256};

use crate::{Count, Deployment};

/// Fields, kept apart by their lengths: ("ab", "c") and ("a", "bc") differ.
#[derive(Default)]
struct Fields(Sha256);

impl Fields {
    fn put(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }

    fn map(&mut self, map: &BTreeMap<String, String>) {
        self.put(&map.len().to_string());
        for (name, value) in map {
            self.put(name);
            self.put(value);
        }
    }

    fn amounts(&mut self, amounts: &Amounts) {
        for amount in [amounts.cpus, amounts.gpus, amounts.memory, amounts.vram] {
            self.put(&amount.to_string());
        }
        self.put(&amounts.custom.len().to_string());
        for (name, amount) in &amounts.custom {
            self.put(name);
            self.put(&amount.to_string());
        }
    }

    fn selector(&mut self, selector: &Selector) {
        self.put(&selector.0.len().to_string());
        for (key, wanted) in &selector.0 {
            self.put(key);
            let (sign, values) = match wanted {
                Match::In(values) => ("in", values),
                Match::NotIn(values) => ("!in", values),
            };
            self.put(sign);
            self.put(&values.len().to_string());
            values.iter().for_each(|value| self.put(value));
        }
    }

    /// 16 hexadecimal digits.
    fn end(self) -> String {
        let digest = self.0.finalize();
        digest.iter().take(8).fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

impl Deployment {
    /// A digest of everything that a running replica cannot change about itself.
    #[must_use]
    pub fn version(&self) -> String {
        let mut fields = Fields::default();
        fields.put(&self.kind.to_string());
        fields.put(&self.model);
        fields.map(&self.models);
        fields.put(&self.max_models.to_string());
        fields.put(&self.engine);
        fields.map(&self.options);
        fields.amounts(&self.need);
        // Where replicas stand beside each other is settled when one is placed; which workers they may have is not.
        fields.put(&self.placing.gang.to_string());
        fields.selector(&self.placing.selector);
        // Nothing for all of them, so that replicas of a whole keep the version that they have.
        self.stages.iter().for_each(|stage| fields.put(stage.name()));
        fields.end()
    }

    /// A digest of everything that takes effect without a restart.
    #[must_use]
    pub fn light(&self) -> String {
        let mut fields = Fields::default();
        fields.put(&match &self.count {
            Count::Fixed(count) => count.to_string(),
            // Numbers are written so that they read back the same.
            Count::Auto(config) => format!("{config:?}"),
        });
        fields.put(&self.max_ongoing_requests.to_string());
        fields.put(&self.max_queued_requests.to_string());
        fields.put(&format!("{:?}", self.grace));
        fields.put(&format!("{:?}", self.health));
        fields.put(
            &self
                .user_config
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
        );
        fields.put(&format!("{:?}", self.rollout));
        fields.put(&format!("{:?}", self.backpressure));
        let placing = &self.placing;
        fields.put(&format!(
            "{:?} {} {:?}",
            placing.strategy, placing.gang_restart, placing.per_node
        ));
        fields.put(&placing.prefer.len().to_string());
        placing
            .prefer
            .iter()
            .for_each(|selector| fields.selector(selector));
        // Nothing where it is not said, so that deployments of before keep the digest that they have.
        if let Some(longest) = self.max_queued {
            fields.put(&format!("max_queued {longest:?}"));
        }
        fields.end()
    }
}
