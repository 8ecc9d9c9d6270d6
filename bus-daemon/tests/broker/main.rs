//! The broker by plain calls, told as stories: who connects, who sends, who hears what.

mod attach;
mod bench;
mod delivery;
mod ends;
mod flow;
mod orders;
mod resume;
