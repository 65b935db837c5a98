//! One run, told: what a failing seed comes to, what happened in it, how to see it again and how to keep it.

use std::error::Error;
use std::path::Path;

use driftless::sim::{Plan, Profile, Report, Run, Setting, minimise, run_checked};
use serde_json::{Value, json};

use crate::args::Cli;
use crate::print;
use crate::tally::Failed;

/// Lines told of the end of a failing run.
const LAST_LINES: usize = 40;

/// Returns a failure as it is told: the smallest schedule found, its last events, how to replay it, how to keep it.
pub(crate) fn failure(profile: Profile, failed: &Failed, runs_max: usize) -> String {
    let (seed, invariant) = (failed.seed, &failed.failure.invariant);
    let plan = profile.plan(seed);
    let small = minimise(&plan, invariant, runs_max);
    let report = Run::new(&small).lines(LAST_LINES).go();
    let mut out = format!("\n== seed {seed} of {profile}: {invariant}\n{}\n", failed.failure.detail);
    let mut line = |text: &str| {
        out.push_str(text);
        out.push('\n');
    };
    line(&format!("\nthe schedule, {} steps of {}", small.steps.len(), plan.steps.len()));
    line(&format!("  {}", lean(&small.setting)));
    small.steps.iter().for_each(|step| line(&format!("  {step}")));
    line(&format!("\nits last {LAST_LINES} lines"));
    report.lines.iter().for_each(|told| line(&format!("  {told}")));
    line("\nto replay it");
    line(&format!(
        "  cargo run --release --no-default-features --features sim --example simulate -- --config {profile} --seed {seed} --trace"
    ));
    line("\nto keep it, put this line into a file under tests/seeds");
    line(&format!("  {}", regression(&small, &report)));
    out
}

/// Tells one seed.
pub(crate) fn seed(profile: Profile, seed: u64, cli: &Cli) -> Result<bool, Box<dyn Error>> {
    let plan = profile.plan(seed);
    if !cli.trace {
        let report = run_checked(&plan, true);
        if let Some(failure) = report.failure.clone() {
            print(&self::failure(profile, &Failed { seed, failure }, cli.minimise_runs))?;
        }
        return verdict(&report);
    }
    print(&format!("seed {seed} of {profile}: {}\n", lean(&plan.setting)))?;
    told(&plan)
}

/// Tells the plans of a file.
pub(crate) fn plans(file: &Path, trace: bool) -> Result<bool, Box<dyn Error>> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let mut holds = true;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let plan = read(line).map_err(|e| format!("{}: {e}", file.display()))?;
        holds &= if trace { told(&plan)? } else { verdict(&run_checked(&plan, true))? };
    }
    Ok(holds)
}

fn told(plan: &Plan) -> Result<bool, Box<dyn Error>> {
    let report = Run::new(plan).lines(usize::MAX).go();
    for line in &report.lines {
        print(&format!("{line}\n"))?;
    }
    for (event, times) in &report.hits {
        print(&format!("{:>9}    {} x {times}\n", "", event.name()))?;
    }
    verdict(&report)
}

fn verdict(report: &Report) -> Result<bool, Box<dyn Error>> {
    let time = report.virtual_time.as_secs_f64();
    let end = match (&report.failure, &report.excused) {
        (Some(failure), _) => format!("FAILS: {failure}"),
        (None, Some((limit, failure))) => format!("excused by {}: {failure}", limit.name()),
        (None, None) => "holds".to_owned(),
    };
    print(&format!("{} steps, {time:.1} s, trace {:016x}: {end}\n", report.steps, report.trace))?;
    Ok(report.failure.is_none())
}

/// Returns the plan a line of `tests/seeds` means.
fn read(line: &str) -> Result<Plan, Box<dyn Error>> {
    let mut value: Value = serde_json::from_str(line)?;
    if let Some(plan) = value.get_mut("plan") {
        return Ok(serde_json::from_value(plan.take())?);
    }
    if let (Some(profile), Some(seed)) = (value.get("profile").and_then(Value::as_str), value.get("seed")) {
        let profile = Profile::named(profile).ok_or_else(|| crate::args::no_such_config(profile))?;
        return Ok(profile.plan(seed.as_u64().ok_or("the seed is no number")?));
    }
    Ok(serde_json::from_value(value)?)
}

fn regression(plan: &Plan, report: &Report) -> Value {
    let why = report.failure.as_ref().map_or_else(String::new, ToString::to_string);
    json!({ "why": why, "plan": { "seed": plan.seed, "setting": lean(&plan.setting), "steps": plan.steps } })
}

/// Returns what of a setting is not the default.
fn lean(setting: &Setting) -> Value {
    let (Ok(Value::Object(mut all)), Ok(Value::Object(default))) =
        (serde_json::to_value(setting), serde_json::to_value(Setting::default()))
    else {
        return Value::Null;
    };
    all.retain(|name, value| default.get(name) != Some(value));
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_survives_being_written_down_and_read_again() {
        for seed in 0..50 {
            let plan = Profile::named("swarm").unwrap().plan(seed);
            let report = Report::default();
            let line = regression(&plan, &report).to_string();
            assert_eq!(read(&line).unwrap(), plan, "{line}");
        }
        assert_eq!(read(r#"{"profile":"calm","seed":3}"#).unwrap(), Profile::named("calm").unwrap().plan(3));
        assert!(read("{}").is_err() && read(r#"{"profile":"none","seed":3}"#).is_err());
    }
}
