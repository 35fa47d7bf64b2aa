//! One test per law.

/// Makes a backend's laws its tests: one `#[test]` a law, by name.
///
/// ```
/// # fn main() {}
/// use annals_conformance::{harness::LogHarness, laws};
///
/// laws! { model_log => LogHarness::new(), refused: [lineage] }
/// ```
///
/// makes `model_log::law::range` and its like. The expression gives a [`Harness`](crate::Harness)
/// for each; `refused` pins the laws that the backend does not claim: a law that ends otherwise
/// than expected fails its test, whichever way it turned.
#[macro_export]
macro_rules! laws {
    ($backend:ident => $harness:expr, refused: [ $($refused:ident),* $(,)? ] $(,)?) => {
        /// The laws.
        mod $backend {
            #[allow(unused_imports, reason = "the harness's expression may need none of it")]
            use super::*;

            const REFUSED: &[&str] = &[$(stringify!($refused)),*];

            fn judge(law: &str) {
                let harness: ::std::sync::Arc<dyn $crate::Harness> = ::std::sync::Arc::new($harness);
                $crate::runner::test(
                    law,
                    REFUSED.contains(&law),
                    &harness,
                    &$crate::runner::Again {
                        package: env!("CARGO_PKG_NAME"),
                        test: env!("CARGO_CRATE_NAME"),
                        module: stringify!($backend),
                    },
                );
            }

            $crate::for_each_law! { __law_tests! { } }
        }
    };
}

/// The tests of [`laws!`].
#[doc(hidden)]
#[macro_export]
macro_rules! __law_tests {
    ([ $($law:ident,)* ]) => {
        /// One test a law.
        mod law {
            $(
                #[test]
                fn $law() {
                    super::judge(stringify!($law));
                }
            )*
        }
    };
}
