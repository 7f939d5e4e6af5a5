"""What is measured, as pure functions on plain values: no models, records or files here.

A sample's `score` gives its columns: plain numbers. A figure is a function of the columns' sums over the samples, and
`intervals.interval` takes those columns and that function. Where two protocols differ, the columns of the original
repository's way ("upstream") carry that name; those without it are the official ones.

| figure                        | columns                                   | function of their sums   |
|-------------------------------|-------------------------------------------|--------------------------|
| gIoU                          | iou, 1                                    | ratio                    |
| gIoU, upstream                | upstream_iou, 1                           | ratio                    |
| cIoU                          | intersection, union                       | ratio                    |
| cIoU, upstream                | upstream_intersection, upstream_union     | ratio                    |
| N-acc                         | no_target_right, no_target                | ratio                    |
| T-acc                         | target_right, target                      | ratio                    |
| box accuracy (bbox_AP there)  | any_box, one_box (upstream)               | ratio                    |
| box accuracy                  | first_box, one_box                        | ratio                    |
| precision, recall at 0.5      | matched, predicted; matched, true         | ratio                    |
| F1 at 0.5                     | matched, predicted, true                  | boxes.f1                 |
| MAE of the number of boxes    | absolute_error, counted                   | ratio                    |
| counting accuracy, off by one | exact, 1; off_by_one, 1                   | ratio                    |
| counting MAE, RMSE            | absolute_error, counted; squared_error, … | ratio; counting.rmse     |
| mean accuracy per true count  | counting.per_count(exact, truth)          | counting.mean_accuracy   |
| the same three, upstream      | upstream_exact, upstream_absolute_error … | as above, divided by 1   |
| answers (ANLS, VQA, …)        | one function of `text` each, 1            | ratio                    |
| COCO AP                       | no sums: see `coco`                       | coco.intervals          |
"""
