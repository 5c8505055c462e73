//! A second model for the last steps.

use super::*;

pub(super) fn refined(switch_at: f32, steps: u32) -> image::GenerateRequest {
    image::GenerateRequest {
        prompt: "a cat".into(),
        steps: Some(steps),
        refiner: Some(Refiner {
            model: "refiner".into(),
            switch_at,
            ..Refiner::default()
        }),
        ..Default::default()
    }
}

#[test]
fn a_refiner_takes_the_last_steps_and_their_cost() {
    let plan = with(refined(0.8, 40), &model(), Some(&refiner())).unwrap();
    let refine = plan.refine.unwrap();
    assert_eq!((plan.cost.get(), refine.cost.get()), (64, 16));
    assert_eq!((refine.switch_at, refine.is_guided), (0.8, true));
    let request = image::GenerateRequest {
        guidance_interval: Some(GuidanceInterval { start: 0.0, end: 0.4 }),
        ..refined(0.8, 40)
    };
    let plan = with(request, &model(), Some(&refiner())).unwrap();
    assert_eq!(
        plan.cost.get(),
        32 + 16,
        "guided in the first half of the first model's steps"
    );
    assert_eq!(plan.refine.as_ref().map(|refine| refine.cost.get()), Some(8));
    assert_eq!(plan.interval(0.8, 1.0), None);
}

#[test]
fn a_refiner_that_cannot_refine_this_is_refused() {
    let field = |request, refiner: &ModelInfo| {
        let problem = with(request, &model(), Some(refiner)).unwrap_err().remove(0);
        problem.field.into_owned()
    };
    for wrong in [0.0, 1.0, -1.0, f32::NAN] {
        assert_eq!(
            field(refined(wrong, 40), &refiner()),
            "refiner.switch_at",
            "{wrong}"
        );
    }
    assert_eq!(field(refined(0.5, 1), &refiner()), "refiner");
    assert_eq!(field(refined(0.5, 40), &model()), "refiner.model");
    let change = |change: fn(&mut ModelInfo)| {
        let mut model = refiner();
        change(&mut model);
        model
    };
    assert_eq!(
        field(refined(0.5, 40), &change(|m| m.max_size = 64)),
        "refiner.model"
    );
    assert_eq!(
        field(refined(0.5, 40), &change(|m| m.max_steps = 10)),
        "refiner.model"
    );
    let scheduler = image::GenerateRequest {
        scheduler: "euler".into(),
        ..refined(0.5, 40)
    };
    assert_eq!(
        field(scheduler, &change(|m| m.schedulers = vec!["ddim".into()])),
        "refiner.model"
    );
    let from = image::GenerateRequest {
        init_image: png(64, 64),
        ..refined(0.5, 40)
    };
    assert_eq!(field(from, &refiner()), "refiner");
    let mut unnamed = refined(0.5, 40);
    unnamed.refiner = Some(Refiner {
        switch_at: 0.5,
        ..Refiner::default()
    });
    assert_eq!(
        with(unnamed, &model(), None).unwrap_err()[0].field,
        "refiner.model"
    );
    let many = image::GenerateRequest {
        image_count: 16,
        width: Some(4096),
        height: Some(4096),
        ..refined(0.5, 40)
    };
    let large = ModelInfo {
        max_size: 4096,
        ..model()
    };
    let problem = with(many, &large, None).unwrap_err().remove(0);
    assert_eq!(problem.field, "refiner");
}

proptest! {
    #[test]
    fn both_models_together_cost_as_many_rows_as_one(switch_at in 0.01f32..0.99, steps in 2u32..150) {
        let plan = with(refined(switch_at, steps), &model(), Some(&refiner())).unwrap();
        let alone = with(image::GenerateRequest { refiner: None, ..refined(0.5, steps) }, &model(), None).unwrap();
        let last = plan.refine.unwrap().cost.get();
        prop_assert!(last > 0 && plan.cost.get() > 0);
        prop_assert_eq!(plan.cost.get() + last, alone.cost.get());
    }
}
