//! `mobula config`: what was accepted last, as `serve config` shows it.

use mobula_proto::control::v1::GetConfigRequest;

use super::{Target, print, timed};
use crate::Error;

const EXAMPLES: &str = "\
Examples:
  mobula config                  everything, as YAML
  mobula config sd               one application
  mobula config > serve.yaml     to edit and `mobula deploy` again
  mobula config --json | jq .applications[0].name

Exit codes: 0 shown, 1 no such application or no controller, 2 wrong usage.";

/// Flags of `mobula config`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Config {
    /// Application; all when left out
    #[arg(default_value = "", hide_default_value = true)]
    application: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Config {
    pub(crate) async fn run(self) -> Result<(), Error> {
        let (remote, mut client) = self.target.client()?;
        let request = GetConfigRequest {
            name: self.application,
        };
        let answer = client.get_config(timed(request)).await;
        let config = answer
            .map_err(|status| remote.explain(status))?
            .into_inner()
            .config;
        if self.json {
            return print(&format!("{config}\n"));
        }
        print(&yaml(&config).unwrap_or(config))
    }
}

/// JSON as YAML, which is what people edit.
fn yaml(json: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(json).ok()?;
    serde_saphyr::to_string(&value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_is_shown_as_yaml_that_reads_back() {
        let json = r#"{"applications":[{"name":"sd","import_path":"mobula.image:text_to_image","args":{"model":"fake"}}]}"#;
        let text = yaml(json).unwrap();
        assert!(text.contains("name: sd"), "{text}");
        assert!(mobula_schema::parse(&text).is_ok(), "{text}");
    }
}
