//! The stream route beside its floors: `cargo bench -p bus-benches -- --help` lists the options.

fn main() -> anyhow::Result<()> {
    bus_benches::run()
}
