//! Why one request took so long, or failed: where its time went, and how that compares with others like it.

use mobula_proto::{common::v1::Timings, control::v1 as pb};
use tonic::Code;

use super::{Records, Sheet, unknown};
use crate::Error;

/// Below this many others a median says nothing.
const FEWEST_COMPARED: usize = 5;
/// A stage that took so many times the median of others is named as slow.
const SLOW: f64 = 1.5;

/// One part of a request's time.
struct Stage {
    name: &'static str,
    what: &'static str,
    us: fn(&Timings) -> u64,
}

const STAGES: [Stage; 6] = [
    Stage {
        name: "queue",
        what: "waiting for a replica and for its first step",
        us: |t| t.queue_us,
    },
    Stage {
        name: "preprocess",
        what: "its prompt and pictures",
        us: |t| t.preprocess_us,
    },
    Stage {
        name: "encode",
        what: "the text encoder",
        us: |t| t.encode_us,
    },
    Stage {
        name: "denoise",
        what: "its denoising steps",
        us: |t| t.denoise_us,
    },
    Stage {
        name: "decode",
        what: "the VAE decoder",
        us: |t| t.decode_us,
    },
    Stage {
        name: "image",
        what: "writing its picture",
        us: |t| t.image_us,
    },
];

pub(super) fn explain(
    id: &str,
    status: &pb::GetStatusResponse,
    records: &Records,
) -> Result<pb::ExplainResponse, Error> {
    let request = records.get(id).ok_or_else(|| {
        let known = unknown("request", id, records.ids());
        Error::Unknown(format!(
            "{known}. Requests are known once they have ended, and the last ten thousand are kept"
        ))
    })?;
    let code = Code::from(i32::try_from(request.code).unwrap_or(2));
    let seconds = seconds(request.total_ms.saturating_mul(1000));
    let mut sheet = if code == Code::Ok {
        Sheet::new(format!("it took {seconds}, most of it in {}", longest(request)))
    } else {
        let message = if request.message.is_empty() {
            code.description()
        } else {
            &request.message
        };
        Sheet::new(format!("it ended with {code:?} after {seconds}: {message}"))
    };
    sheet.find("request", what(request));
    if request.no_replica_ms > 0 {
        let waited = self::seconds(request.no_replica_ms.saturating_mul(1000));
        sheet.find(
            "no replica",
            format!("for {waited} its deployment had no replica that runs"),
        );
        sheet.advise("keep one replica with min_replicas: 1, so that nobody waits for a model to load");
    }
    if request.replica_ids.len() > 1 {
        let ids = request.replica_ids.join(", then ");
        sheet.find(
            "restarts",
            format!("it was drawn again with the same seeds, because a replica was lost: {ids}"),
        );
    }
    let timings = request.timings.unwrap_or_default();
    split(&timings, request, records, &mut sheet);
    if timings.queue_us > request.total_ms.saturating_mul(1000) / 2 && code == Code::Ok {
        queued(request, status, &mut sheet);
    }
    advise_by_code(code, &mut sheet);
    Ok(sheet.done())
}

/// Where the time went, the longest part first, each with the median of others beside it.
fn split(timings: &Timings, request: &pb::FinishedRequest, records: &Records, sheet: &mut Sheet) {
    let others: Vec<Timings> = records.like(request).filter_map(|r| r.timings).collect();
    let mut parts: Vec<(&Stage, u64)> = STAGES.iter().map(|stage| (stage, (stage.us)(timings))).collect();
    parts.retain(|(_, us)| *us > 0);
    parts.sort_by_key(|(_, us)| std::cmp::Reverse(*us));
    for (stage, us) in parts {
        let share = percent(us, request.total_ms.saturating_mul(1000));
        let mut text = format!("{} for {} ({share} %)", seconds(us), stage.what);
        if others.len() >= FEWEST_COMPARED {
            let typical = median(others.iter().map(stage.us).collect());
            let verdict = if ratio(us, typical) >= SLOW {
                "slower than"
            } else {
                "about as"
            };
            text += &format!(
                ", {verdict} the last {} like it (median {})",
                others.len(),
                seconds(typical)
            );
        }
        if stage.name == "denoise" && timings.ticks > 0 {
            let per = seconds(us / u64::from(timings.ticks));
            text += &format!("; {} UNet calls, {per} each", timings.ticks);
        }
        sheet.find(stage.name, text);
    }
}

/// It waited for most of its time: what would have helped.
fn queued(request: &pb::FinishedRequest, status: &pb::GetStatusResponse, sheet: &mut Sheet) {
    if request.ahead > 0 {
        sheet.find(
            "queue",
            format!("{} requests were ahead of it when it came", request.ahead),
        );
    }
    let application = status.applications.iter().find(|a| a.name == request.application);
    let pipeline = application.and_then(|application| {
        let mut deployments = application.deployments.iter();
        let draws = i32::from(pb::Stage::Denoise);
        deployments.find(|d| {
            d.kind() == pb::WorkerKind::Inference && (d.stages.is_empty() || d.stages.contains(&draws))
        })
    });
    let Some(pipeline) = pipeline else { return };
    match &pipeline.scaling {
        Some(scaling) if pipeline.target_replicas >= scaling.max_replicas => sheet.advise(format!(
            "{} is at its max_replicas of {}: raise it, or give the request a higher priority",
            pipeline.name, scaling.max_replicas
        )),
        Some(scaling) => sheet.find("scaling", scaling.message.clone()),
        None => sheet.advise(format!(
            "{} has a fixed number of {} replicas: raise num_replicas or give it an autoscaling_config",
            pipeline.name, pipeline.target_replicas
        )),
    }
}

fn advise_by_code(code: Code, sheet: &mut Sheet) {
    #[allow(clippy::wildcard_enum_match_arm, reason = "the others say for themselves what to do")]
    match code {
        Code::ResourceExhausted => sheet.advise(
            "send it again after the time in Retry-After; if this is usual, raise max_queued_requests or the number of replicas",
        ),
        Code::DeadlineExceeded => {
            sheet.advise("give it more time, fewer steps or a smaller size, or a higher priority");
        }
        Code::Unavailable => {
            sheet.advise("see `mobula explain --application` for why no replica could take it");
        }
        _ => {}
    }
}

fn what(request: &pb::FinishedRequest) -> String {
    let mut text = format!("of application {:?}", request.application);
    if request.width > 0 {
        text += &format!(
            ": {} of {} x {} pixels in {} steps",
            if request.pictures == 1 {
                "a picture".into()
            } else {
                format!("{} pictures", request.pictures)
            },
            request.width,
            request.height,
            request.steps
        );
    }
    if let Some(replica) = request.replica_ids.last() {
        text += &format!(", drawn by {replica}");
    }
    text
}

fn longest(request: &pb::FinishedRequest) -> &'static str {
    let timings = request.timings.unwrap_or_default();
    let longest = STAGES.iter().max_by_key(|stage| (stage.us)(&timings));
    longest.map_or("nothing that was measured", |stage| stage.what)
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[allow(
    clippy::cast_precision_loss,
    reason = "microseconds of a request fit a double"
)]
fn ratio(us: u64, typical: u64) -> f64 {
    us as f64 / (typical.max(1)) as f64
}

fn percent(us: u64, of: u64) -> u64 {
    let share = (u128::from(us) * 100).checked_div(of.into()).unwrap_or(0);
    u64::try_from(share.min(100)).unwrap_or(100)
}

/// Microseconds in the unit that is read most easily.
pub(super) fn seconds(us: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "for reading")]
    let ms = us as f64 / 1000.0;
    match ms {
        ms if ms >= 1000.0 => format!("{:.1} s", ms / 1000.0),
        ms if ms >= 10.0 => format!("{ms:.0} ms"),
        ms => format!("{ms:.1} ms"),
    }
}
