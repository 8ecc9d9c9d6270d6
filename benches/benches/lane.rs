//! The lane's ring beside its floors: `cargo bench -p bus-benches --bench lane -- --help` lists the options.

fn main() -> anyhow::Result<()> {
    bus_benches::run_lane()
}
