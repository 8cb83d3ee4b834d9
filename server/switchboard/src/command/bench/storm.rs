//! `bench storm`: gateways die with all their devices, and everybody comes back at once.

use std::collections::HashSet;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use switchboard_device::GatewayAddress;
use switchboard_sdk::Client;
use tokio::time::sleep;

use super::{seconds, within, write_json};
use crate::cli::Global;
use crate::command::operator::{StoreArgs, failure};
use crate::limits::{STORM_DEVICES_MAX, STORM_GATEWAYS_MAX, STORM_PER_WORKER_MAX};
use crate::output::Failure;
use crate::storm::crowd::{self, Share};
use crate::storm::gateways::{Gateway, free_addresses};
use crate::storm::others::{Calls, Kind, Others};
use crate::storm::report::{self, Compared, Ghosts, Report};
use crate::storm::sessions::Doomed;
use crate::storm::unix_ms;
use crate::storm::workers::{Standing, Workers};

/// By how much workers let others go first: the devices of a real crowd are no load on the servers' cores.
const WORKER_NICENESS: i32 = 15;
/// How long the crowd may take to log in for the first time.
const LOGIN_WITHIN: Duration = Duration::from_secs(600);
/// How long messages that are safe may take to arrive once all are back.
const ARRIVE_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at what look-ups say of some of the crowd, and of how many.
const GHOSTS_INTERVAL: Duration = Duration::from_millis(500);
const GHOSTS_ASKED: usize = 256;
/// Between two lines that say how it stands.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// Kill gateways under their devices, and report how these come back and what others notice
///
/// Starts gateways of its own beside a store and a chat that run: some that will die, as many that
/// take over, and one for devices that are not in the storm. When all of the crowd is connected to
/// the first, these are killed with SIGKILL at once. The devices are those of the device library,
/// with its backoff. Meanwhile look-ups, messages among others and messages to the crowd go on at
/// fixed rates. The devices' processes have a low priority: elsewhere they would be machines of their
/// own. Exit code 1 if a device does not come back, a look-up still names a dead gateway, or
/// a message that was safe does not arrive.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard bench storm
  switchboard bench storm --devices 100000 --gateways 6 --json storm.json
  switchboard bench storm --store 127.0.0.1:7400 --devices 20000 --calm 10")]
pub(crate) struct Storm {
    #[command(flatten)]
    store: StoreArgs,
    /// Devices in the storm
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = devices)]
    devices: usize,
    /// Gateways that die; as many others take over
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = gateways)]
    gateways: usize,
    /// How long others are watched before the kill, in seconds
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = seconds)]
    calm: f64,
    /// How long the crowd may take to come back, in seconds
    #[arg(long, value_name = "S", default_value_t = 120.0, value_parser = seconds)]
    within: f64,
    /// Look-ups of others, a second
    #[arg(long, value_name = "N", default_value_t = 200.0, value_parser = rate)]
    lookups: f64,
    /// Messages among others, and as many to the crowd, a second
    #[arg(long, value_name = "N", default_value_t = 100.0, value_parser = rate)]
    messages: f64,
    /// What devices present to the gateway
    #[arg(long, default_value = "", env = "SWITCHBOARD_TOKEN", hide_env_values = true)]
    token: String,
    /// Also write the report to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Do not say how it stands
    #[arg(long, short)]
    quiet: bool,
    /// Be a worker for devices from this one on
    #[arg(long, hide = true)]
    worker: Option<usize>,
    /// The gateways of a worker's devices
    #[arg(long, hide = true, value_delimiter = ',')]
    address: Vec<GatewayAddress>,
    /// What the names of a worker's users begin with
    #[arg(long, hide = true, default_value = "storm")]
    prefix: String,
}

/// All that stands before the storm begins.
struct Stage {
    client: Client,
    prefix: String,
    doomed: Vec<Gateway>,
    spare: Vec<Gateway>,
    /// Keeps the gateway of the others alive.
    _calm: Gateway,
    sessions: Doomed,
    others: Arc<Others>,
    workers: Workers,
    logins_per_s: f64,
}

/// The calls of others while the storm goes on.
struct Watch {
    lookups: Calls,
    messages: Calls,
    to_crowd: Calls,
}

/// What was seen between the kill and the return of the last.
struct Seen {
    killed: Instant,
    killed_ms: u64,
    all_back: Instant,
    ghosts: Vec<Ghosts>,
}

impl Storm {
    pub(crate) async fn run(self, global: Global) -> Result<(), Failure> {
        if let Some(first) = self.worker {
            let Storm { token, prefix, devices: count, address: gateways, .. } = self;
            // Making way for others is never refused.
            let _ = rustix::process::nice(WORKER_NICENESS);
            return crowd::hold(Share { gateways, token, prefix, first, count }).await;
        }
        let mut stage = self.prepare().await?;
        let watch = Watch {
            lookups: stage.others.call(Kind::Lookup, self.lookups),
            messages: stage.others.call(Kind::Message, self.messages),
            to_crowd: stage.others.call(Kind::ToCrowd, self.messages),
        };
        self.say(&format!("watching others for {} s before the storm", self.calm));
        sleep(Duration::from_secs_f64(self.calm)).await;
        let seen = self.kill(&mut stage).await?;
        let report = self.gather(stage, watch, seen).await?;
        if let Some(path) = &self.json {
            write_json(&report, path)?;
        }
        global.output.print(&report, Report::table)?;
        report.faults().map_or(Ok(()), |faults| Err(Failure::failed(faults)))
    }

    async fn prepare(&self) -> Result<Stage, Failure> {
        let client = self.store.connect().await?;
        let prefix = format!("storm-{:08x}", rand::random::<u32>());
        let addresses = free_addresses(2 * self.gateways + 1)?;
        let (doomed_at, spare_at) = addresses[1..].split_at(self.gateways);
        let start = async |kind: &str, at: &[_]| {
            let mut started = Vec::new();
            for (nth, at) in at.iter().enumerate() {
                let name = format!("{prefix}-{kind}-{nth}");
                started.push(Gateway::start(&self.store.nodes(), name, *at).await?);
            }
            Ok::<_, Failure>(started)
        };
        self.say(&format!("starting {} gateways", addresses.len()));
        let calm =
            Gateway::start(&self.store.nodes(), format!("{prefix}-calm"), addresses[0]).await?;
        let doomed = start("doomed", doomed_at).await?;
        let crowd = (prefix.clone(), self.devices);
        let calm_at = addresses[0].to_string();
        let others = Others::connect(client.clone(), &calm_at, &self.token, crowd).await?;
        let taking_turns = doomed_at.iter().zip(spare_at).flat_map(|(one, other)| [one, other]);
        let known: Vec<String> = taking_turns.map(ToString::to_string).collect();
        let (workers, logins_per_s) = self.crowd(&prefix, &known.join(",")).await?;
        let spare = start("spare", spare_at).await?;
        let names: HashSet<&str> = doomed.iter().map(|gateway| gateway.name.as_str()).collect();
        let sessions = Doomed::find(&client, &names).await;
        let sessions = sessions.map_err(|error| failure(&error))?;
        if sessions.len() != doomed.len() {
            return Err(Failure::failed("the store does not name all gateways that were started"));
        }
        let others = Arc::new(others);
        Ok(Stage {
            client,
            prefix,
            doomed,
            spare,
            _calm: calm,
            sessions,
            others,
            workers,
            logins_per_s,
        })
    }

    /// Starts workers, and waits until all of the crowd is connected.
    async fn crowd(&self, prefix: &str, known: &str) -> Result<(Workers, f64), Failure> {
        let share = self.devices.div_ceil(self.devices.div_ceil(STORM_PER_WORKER_MAX));
        let parts: Vec<(usize, usize)> = (0..self.devices)
            .step_by(share)
            .map(|first| (first, share.min(self.devices - first)))
            .collect();
        let arguments = |first: usize, count: usize| {
            let words = ["bench", "storm", "--prefix", prefix, "--address", known];
            let numbers = ["--worker", &first.to_string(), "--devices", &count.to_string()];
            words.iter().chain(&numbers).map(ToString::to_string).collect()
        };
        let started = Instant::now();
        let workers = Workers::start(&parts, arguments, &self.token)?;
        let mut line = Line::new(self.quiet);
        let shown = |standing: Standing| {
            line.say(|| format!("{} of {} devices connected", standing.online, self.devices));
        };
        let is_so = |standing: Standing| standing.online >= self.devices;
        if !workers.until(LOGIN_WITHIN, is_so, shown).await? {
            let online = workers.standing().online;
            return Err(Failure::failed(format!("only {online} devices could connect")));
        }
        Ok((workers, self.devices as f64 / started.elapsed().as_secs_f64()))
    }

    /// Kills the doomed gateways, and waits until all of the crowd is back or the time is over.
    async fn kill(&self, stage: &mut Stage) -> Result<Seen, Failure> {
        stage.workers.warn(unix_ms()).await?;
        let (killed, killed_ms) = (Instant::now(), unix_ms());
        stage.doomed.iter_mut().for_each(Gateway::kill);
        self.say("killed");
        let mut line = Line::new(self.quiet);
        let shown = |standing: Standing| {
            let seconds = killed.elapsed().as_secs_f64();
            line.say(|| format!("{seconds:.1} s: {} of {} back", standing.back, self.devices));
        };
        let within = Duration::from_secs_f64(self.within);
        let is_so = |standing: Standing| standing.back >= self.devices;
        let mut ghosts = Vec::new();
        tokio::select! {
            back = stage.workers.until(within, is_so, shown) => { back?; }
            never = self.look_on(stage, killed, &mut ghosts) => match never {},
        }
        let all_back = Instant::now();
        // Until the leases of the dead have ended, if they have not.
        while ghosts.last().is_none_or(|last| last.ghosts > 0) && killed.elapsed() < within {
            self.look(stage, killed, &mut ghosts).await;
            sleep(GHOSTS_INTERVAL).await;
        }
        Ok(Seen { killed, killed_ms, all_back, ghosts })
    }

    /// Looks some of the crowd up, again and again.
    async fn look_on(&self, stage: &Stage, killed: Instant, seen: &mut Vec<Ghosts>) -> Infallible {
        loop {
            self.look(stage, killed, seen).await;
            sleep(GHOSTS_INTERVAL).await;
        }
    }

    async fn look(&self, stage: &Stage, killed: Instant, seen: &mut Vec<Ghosts>) {
        let asked = GHOSTS_ASKED.min(self.devices);
        let some = (0..asked).map(|nth| nth * self.devices / asked);
        let at_ms = killed.elapsed().as_millis() as u64;
        // A look that fails is one that says nothing; the look at the whole crowd must succeed.
        if let Ok(found) = stage.sessions.look(&stage.client, &stage.prefix, some).await {
            seen.push(Ghosts { at_ms, asked, ghosts: found.ghosts, live: found.live });
        }
    }

    /// Ends all, and puts together what came of it.
    async fn gather(&self, stage: Stage, watch: Watch, seen: Seen) -> Result<Report, Failure> {
        let Stage {
            client, prefix, doomed, sessions, others, workers, logins_per_s, spare, ..
        } = stage;
        let Seen { killed, killed_ms, all_back, ghosts } = seen;
        let (lookups, messages) = (watch.lookups.stop().await, watch.messages.stop().await);
        watch.to_crowd.stop().await;
        let sent = others.sent();
        let arrived = |standing: Standing| standing.received >= sent.len();
        // Whether all arrive is told by what is lost.
        let _ = workers.until(ARRIVE_WITHIN, arrived, |_| {}).await?;
        let found = sessions.look(&client, &prefix, 0..self.devices).await;
        let found = found.map_err(|error| failure(&error))?;
        let worker_processes = workers.len();
        let end = workers.end().await?;
        drop(spare);
        let (back_by_step, back_ms) = report::returns(&end, killed_ms);
        let (lost, shown_twice) = report::lost_and_repeated(&sent, &end.received);
        let named = ghosts.iter().rposition(|look| look.ghosts > 0);
        let gone = named.map_or(0, |last| last + 1);
        Ok(Report {
            devices: self.devices,
            gateways: doomed.len(),
            worker_processes,
            logins_per_s,
            calm_seconds: self.calm,
            back: back_ms.count,
            missing: self.devices.saturating_sub(back_ms.count),
            back_ms,
            step_ms: report::STEP_MS,
            back_by_step,
            refusals: end.refusals,
            lookups: Compared::of(&lookups, killed, all_back),
            messages: Compared::of(&messages, killed, all_back),
            others_step_ms: report::OTHERS_STEP_MS,
            others_by_step: report::steps(&lookups, &messages, killed),
            ghosts_gone_ms: ghosts.get(gone).map(|look| look.at_ms),
            ghosts_by_time: ghosts,
            ghosts: found.ghosts,
            found: found.live,
            sent: sent.len(),
            lost,
            repeats_dropped: end.repeats_dropped,
            shown_twice,
        })
    }

    fn say(&self, what: &str) {
        if !self.quiet {
            eprintln!("{what}");
        }
    }
}

/// Says now and then how it stands.
struct Line {
    last: Option<Instant>,
}

impl Line {
    fn new(quiet: bool) -> Line {
        Line { last: (!quiet).then(Instant::now) }
    }

    fn say(&mut self, what: impl FnOnce() -> String) {
        if let Some(last) = self.last.as_mut().filter(|last| last.elapsed() >= LINE_INTERVAL) {
            *last = Instant::now();
            eprintln!("{}", what());
        }
    }
}

fn devices(text: &str) -> Result<usize, String> {
    within(text, 1.0, STORM_DEVICES_MAX as f64).map(|devices| devices as usize)
}

fn gateways(text: &str) -> Result<usize, String> {
    within(text, 1.0, STORM_GATEWAYS_MAX as f64).map(|gateways| gateways as usize)
}

fn rate(text: &str) -> Result<f64, String> {
    within(text, 1.0, 1e5)
}
